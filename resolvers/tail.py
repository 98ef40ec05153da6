"""The end of something that only grows, a log or the changes of a status, read once for all who follow it here."""

import asyncio
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from db.broadcast import Broadcast, Listener, Topic
from db.patience import patiently

BATCH_SIZE = 100  # entries that a subscriber gets at once
KEPT = 500  # entries in memory; who is further behind reads for himself
LOOK_INTERVAL = 10.0  # seconds; news that was missed costs a subscriber no more than this

Entry = TypeVar("Entry")


@dataclass(frozen=True)
class Piece(Generic[Entry]):
    """The next entries behind a position; `is_last` where it has ended and nothing comes after them.

    `end` is the position up to which was read, where entries were left out because they cannot be.
    """

    entries: Sequence[Entry]
    is_last: bool = False
    end: int | None = None
    made: dict[object, Any] = field(default_factory=dict, compare=False)  # for one of those who get it, for the others


class Source(Protocol[Entry]):
    """Where entries are read."""

    async def read(self, position: int) -> Piece[Entry] | None:
        """The next entries behind `position`, at most `BATCH_SIZE`, from one snapshot; None where it is gone."""
        ...

    async def read_end(self) -> Piece[Entry] | None:
        """The last entries that there are now, at most `BATCH_SIZE`; None where it is not there."""
        ...

    def position(self, entry: Entry) -> int:
        """The entry's own; it grows."""
        ...


class Tail(Generic[Entry]):
    """The last entries of one source, and one look at the database at a time for all who wait for more.

    Entries in memory have no gap: each look begins behind the last one.  A look begins after the news that it is for,
    also where one is under way when they come: the listener notices them, and the next look does not wait.
    """

    def __init__(self, source: Source[Entry], listener: Listener) -> None:
        self._source = source
        self._listener = listener
        self._entries: list[Entry] | None = None  # None before the first look
        self._positions: list[int] = []  # theirs
        self._start = 0  # the position before the first of them
        self._last = 0  # the position up to which was read
        self._pieces: dict[int, Piece[Entry]] = {}  # of these, by the positions before them: mostly one for all
        self._has_ended = False
        self._is_gone = False
        self._look: asyncio.Task[None] | None = None

    async def behind(self, position: int) -> Piece[Entry] | None:
        """The next entries behind `position`, at most `BATCH_SIZE`, as soon as there are some or it has ended.

        None where it is not there, or no longer.
        """
        while not self._is_gone:
            if self._entries is not None:
                if position < self._start:
                    start, piece = self._start, await self._read(position)
                    if piece is None or piece.entries or piece.is_last:
                        return piece
                    position = piece.end or start  # what was in between cannot be read, or is deleted
                    continue
                if (piece := self._pieces.get(position)) is not None:
                    return piece
                first = bisect_right(self._positions, position)
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
            self._look = asyncio.create_task(self._look_for_all(), name=f"look of {self._source}")
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
        piece = await self._read(self._last)
        if piece is None:
            self._is_gone = True
            return
        self._has_ended = piece.is_last
        self._pieces = {}
        self._keep([*self._entries, *piece.entries], piece.end)
        if len(piece.entries) == BATCH_SIZE or piece.end is not None:
            self._listener.notify()  # there may be more

    async def _read(self, position: int) -> Piece[Entry] | None:
        return await patiently(partial(self._source.read, position), "what is followed cannot be read")

    async def _begin(self) -> None:
        """Find where it ends now.  Raises: SQLAlchemyError, for nobody follows it yet."""
        end = await self._source.read_end()
        if end is None:
            self._is_gone = True
            return
        self._has_ended = end.is_last
        before = self._source.position(end.entries[0]) - 1 if end.entries else end.end or 0
        self._start = self._last = before
        self._keep(list(end.entries), end.end)
        if end.is_last:  # nothing is kept: nobody waits for more of it together with others
            self._start, self._entries, self._positions = self._last, [], []

    def _keep(self, entries: list[Entry], end: int | None) -> None:
        """Have the last of `entries` in memory; `end`: see `Piece`."""
        positions = [self._source.position(entry) for entry in entries]
        self._last = max(self._last, end or 0, *positions[-1:])
        if len(entries) > KEPT:
            self._start = positions[-KEPT - 1]
        self._entries, self._positions = entries[-KEPT:], positions[-KEPT:]


def of(broadcast: Broadcast, topic: Topic, source: Source[Entry]) -> AbstractContextManager[Tail[Entry]]:
    """The tail of what there is news of under `topic`, the same one for all who follow such a source there."""
    return broadcast.share((topic, type(source)), lambda: own(broadcast, topic, source))


@contextmanager
def own(broadcast: Broadcast, topic: Topic, source: Source[Entry]) -> Iterator[Tail[Entry]]:
    """One that is nobody else's, for who sees less than others."""
    with broadcast.listen(topic) as listener:
        tail = Tail(source, listener)
        try:
            yield tail
        finally:
            tail.close()
