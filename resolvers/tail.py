"""The end of a run's log, read once for all who follow it on this server."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import select

from db.engine import Database
from db.models import ACTIVE, LogEntry, Run
from runner.broadcast import Broadcast, Listener

BATCH_SIZE = 100  # log entries that a subscriber gets at once
KEPT = 500  # log entries in memory; who is further behind reads for himself
LOOK_INTERVAL = 10.0  # seconds; news that was missed costs a subscriber no more than this


@dataclass(frozen=True)
class Piece:
    """The next entries behind a position; `is_last` where the run has ended and nothing comes after them."""

    entries: Sequence[LogEntry]
    is_last: bool
    made: dict[object, Any] = field(default_factory=dict, compare=False)  # for one of those who get it, for the others


class Tail:
    """The last entries of one run's log, and one look at the database at a time for all who wait for more.

    Entries in memory have no gap: each look begins behind the last one.  A look begins after the news that it is for,
    also where one is under way when they come: the listener notices them, and the next look does not wait.
    """

    def __init__(self, db: Database, run_id: UUID, listener: Listener) -> None:
        self._db = db
        self._run_id = run_id
        self._listener = listener
        self._entries: list[LogEntry] | None = None  # None before the first look
        self._start = 0  # the sequence before the first of them
        self._pieces: dict[int, Piece] = {}  # of these, by the positions before them: mostly one for all
        self._has_ended = False
        self._is_gone = False
        self._look: asyncio.Task[None] | None = None

    async def behind(self, position: int) -> Piece | None:
        """The next entries behind `position`, at most `BATCH_SIZE`, as soon as there are some or the run has ended.

        None where there is no such run, or no longer.
        """
        while not self._is_gone:
            if self._entries is not None:
                if position < self._start:
                    return await self._read(position)
                if (piece := self._pieces.get(position)) is not None:
                    return piece
                first = position - self._start
                entries = self._entries[first : first + BATCH_SIZE]
                is_last = self._has_ended and first + len(entries) >= len(self._entries)
                if entries or is_last:
                    piece = self._pieces[position] = Piece(entries, is_last)
                    return piece
            await self._look_once()
        return None

    def close(self) -> None:
        """End a look that nobody waits for any more."""
        if self._look is not None:
            self._look.cancel()

    async def _look_once(self) -> None:
        """Wait for a look that is under way, or begin one; who leaves does not end it for the others."""
        if self._look is None:
            self._look = asyncio.create_task(self._look_for_all(), name=f"end of the log of run {self._run_id}")
            self._look.add_done_callback(self._looked)
        look = self._look
        await asyncio.wait({look})
        look.result()

    def _looked(self, look: asyncio.Task[None]) -> None:
        self._look = None
        if look.cancelled() or look.exception():  # those who wait raise it
            self._listener.notify()  # what it was for is still to be read

    async def _look_for_all(self) -> None:
        if self._entries is None:
            await self._begin()
            return
        await self._listener.wait(LOOK_INTERVAL)
        piece = await self._read(self._start + len(self._entries))
        if piece is None:
            self._is_gone = True
            return
        self._has_ended = piece.is_last
        self._pieces = {}
        everything = [*self._entries, *piece.entries]
        self._entries = everything[-KEPT:]
        self._start += len(everything) - len(self._entries)
        if len(piece.entries) == BATCH_SIZE:
            self._listener.notify()  # there may be more

    async def _begin(self) -> None:
        """Find where the log ends now."""
        log = select(LogEntry).where(LogEntry.run_id == self._run_id).order_by(LogEntry.sequence.desc())
        async with self._db.read() as session:
            status = await session.scalar(select(Run.status).where(Run.id == self._run_id))
            entries = list(await session.scalars(log.limit(BATCH_SIZE)))[::-1]
        self._is_gone = status is None
        self._has_ended = status not in ACTIVE
        last = entries[-1].sequence if entries else 0
        # Of a run that has ended nothing is kept: nobody waits for more of it together with others.
        self._entries = [] if self._has_ended else entries
        self._start = last - len(self._entries)

    async def _read(self, position: int) -> Piece | None:
        log = select(LogEntry).where(LogEntry.run_id == self._run_id, LogEntry.sequence > position)
        async with self._db.read() as session:
            # One snapshot: a run that is seen as ended has all its entries in it.
            status = await session.scalar(select(Run.status).where(Run.id == self._run_id))
            if status is None:
                return None
            entries = list(await session.scalars(log.order_by(LogEntry.sequence).limit(BATCH_SIZE)))
        return Piece(entries, status not in ACTIVE and len(entries) < BATCH_SIZE)


def of_run(db: Database, broadcast: Broadcast, run_id: UUID) -> AbstractContextManager[Tail]:
    """The tail of the run's log, the same one for all who follow it."""
    return broadcast.share(run_id, lambda: _opened(db, broadcast, run_id))


@contextmanager
def _opened(db: Database, broadcast: Broadcast, run_id: UUID) -> Iterator[Tail]:
    with broadcast.listen(run_id) as listener:
        tail = Tail(db, run_id, listener)
        try:
            yield tail
        finally:
            tail.close()
