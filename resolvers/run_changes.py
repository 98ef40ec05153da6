"""A run's log, and the changes of its status and phase, for subscribers: each entry and change once and in order."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar, Generic, TypeVar
from uuid import UUID

from sqlalchemy import ColumnElement, UnaryExpression, func, select

from db.broadcast import Broadcast
from db.database import Database
from db.models import ACTIVE, LogEntry, Run, RunEvent, RunStatus
from resolvers import ids, runs, tail
from resolvers.errors import NotFound
from resolvers.paging import Listing
from resolvers.runs import LOG
from resolvers.tail import Piece

EVENTS = Listing("runEvents", RunEvent, key=(RunEvent.sequence,), descending=False, parent=RunEvent.run_id)


Entry = TypeVar("Entry", LogEntry, RunEvent)


@dataclass(frozen=True)
class LogBatch:
    """The next entries of a run's log; `complete` if the run has ended and these are the last ones."""

    run_id: UUID
    entries: Sequence[LogEntry]
    end_cursor: str | None
    complete: bool
    made: dict[object, Any] = field(default_factory=dict, compare=False)  # see `tail.Piece`


@dataclass(frozen=True)
class RunChange:
    """A change of a run's status or phase, and its time.  `cursor` is its position, to resume after it."""

    cursor: str
    at: datetime
    run: Run  # as it is when the change is emitted


async def watch(db: Database, broadcast: Broadcast, run_id: str, after: str | None = None) -> AsyncGenerator[RunChange]:
    """Yield the run's last change, or the changes after the cursor `after`, then every change of its status and phase.

    They are in order.  Ends when the run ends or is deleted.  Raises: NotFound, InvalidInput.
    """
    position = None if after is None else EVENTS.position("after", after)[0]
    key = (await runs.get(db, run_id)).id
    unlimited = db.limited_to(None)  # to be shared: all subscribers that can see the run see the same changes
    with broadcast.subscribed("run"), tail.of(broadcast, key, Events(unlimited, key)) as shared:
        if position is None:
            position = (await _last_event(unlimited, key) or 1) - 1  # the last change is the current state
        while (piece := await shared.after(position)) is not None:
            for event in piece.entries:
                position = event.sequence
                run = (await runs.get_many(unlimited, [key])).get(key)
                if run is None:
                    return
                yield RunChange(EVENTS.cursor([position]), event.at, run)
            if piece.is_last:
                return


async def watch_log(
    db: Database, broadcast: Broadcast, run_id: str, after: str | None = None
) -> AsyncGenerator[LogBatch]:
    """Yield the run's log after the cursor `after` (None: from the start), then new entries, until the run has ended.

    Raises: NotFound, InvalidInput.
    """
    position = 0 if after is None else LOG.position("after", after)[0]
    key = ids.parse(run_id)
    if key is None:
        raise NotFound(kind="Run", id=run_id)
    if db.is_limited:
        await runs.get(db, run_id)  # the tail below is shared with subscribers that can see more
    with broadcast.subscribed("log"), tail.of(broadcast, key, Log(db.limited_to(None), key)) as shared:
        piece = await shared.after(position)
        if piece is None:
            raise NotFound(kind="Run", id=run_id)
        while piece is not None:  # None: the run was deleted with its deployment
            position = piece.entries[-1].sequence if piece.entries else position
            cursor = LOG.cursor([position]) if position else None
            yield LogBatch(key, piece.entries, cursor, piece.is_last, piece.made)
            if piece.is_last:
                return
            piece = await shared.after(position)


@dataclass(frozen=True)
class _OfRun(Generic[Entry]):
    """The source of entries that are numbered within one run."""

    db: Database
    run_id: UUID
    entity: ClassVar[type[LogEntry | RunEvent]]

    async def read(self, position: int) -> Piece[Entry] | None:
        status, entries = await self._read(self.entity.sequence.asc(), self.entity.sequence > position)
        return None if status is None else Piece(entries, status not in ACTIVE and len(entries) < tail.BATCH_SIZE)

    async def read_end(self) -> Piece[Entry] | None:
        status, entries = await self._read(self.entity.sequence.desc())
        return None if status is None else Piece(entries[::-1], status not in ACTIVE)

    def position(self, entry: Entry) -> int:
        return entry.sequence

    async def _read(
        self, order: UnaryExpression[int], *where: ColumnElement[bool]
    ) -> tuple[RunStatus | None, list[Entry]]:
        entries = select(self.entity).where(self.entity.run_id == self.run_id, *where).order_by(order)
        async with self.db.read() as session:
            # One snapshot: if the run has ended in it, all entries of the run are in it.
            status = await session.scalar(select(Run.status).where(Run.id == self.run_id))
            found: Any = await session.scalars(entries.limit(tail.BATCH_SIZE))
            return status, list(found)


class Log(_OfRun[LogEntry]):
    """The log of one run."""

    entity = LogEntry


class Events(_OfRun[RunEvent]):
    """The changes of one run's status and phase."""

    entity = RunEvent


async def _last_event(db: Database, run_id: UUID) -> int | None:
    async with db.read() as session:
        return await session.scalar(select(func.max(RunEvent.sequence)).where(RunEvent.run_id == run_id))
