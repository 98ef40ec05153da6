"""Changes of deployments' statuses, and deletions, for subscribers: each once and in order."""

from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import ColumnElement, Row, Select, UnaryExpression, and_, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute, aliased

from db import stored
from db.broadcast import Broadcast, Everything
from db.database import Database
from db.models import DeletedDeployment, Deployment, Run, StatusEvent
from db.stored import UNREADABLE
from resolvers import deployments, tail
from resolvers.deployments import Filter
from resolvers.paging import Listing
from resolvers.tail import Piece, Tail

CHANGES = Listing("changes", StatusEvent, key=(StatusEvent.sequence,), descending=False)


@dataclass(frozen=True)
class Change:
    """A change of a deployment's status, or its deletion.  `cursor` is its position, to resume after it."""

    cursor: str
    event: StatusEvent
    run: Run | None  # that caused the change
    is_deletion: bool = False  # the deployment was deleted; the event has its last status


async def watch(
    db: Database, broadcast: Broadcast, deployment_id: str, after: str | None = None
) -> AsyncGenerator[Change]:
    """Yield the deployment's current status, or the changes after the cursor `after`, then every change in order.

    Ends when the deployment is deleted.  Raises: NotFound, InvalidInput.
    """
    position = None if after is None else CHANGES.position("after", after)[0]
    key = (await deployments.get(db, deployment_id)).id
    # Unlimited, to be shared: all subscribers that can see the deployment see the same changes.
    source = Changes(db.limited_to(None), key)
    with broadcast.subscribed("deployment"), tail.of(broadcast, key, source) as shared:
        if position is None:
            position = (await _last_change(db, key) or 1) - 1  # the last change is the current status
        async for change in _follow(shared, position):
            yield change


async def watch_all(
    db: Database, broadcast: Broadcast, after: str | None = None, narrowed: Filter | None = None
) -> AsyncGenerator[Change]:
    """Yield every change and deletion of any deployment, in order, from now on or after the cursor `after`.

    A filter's status must match the status before or after the change.  All other conditions are compared with the
    state at the time when the change is read.  Raises: InvalidInput.
    """
    narrowed = None if narrowed == Filter() else narrowed
    find = tail.of if narrowed is None and not db.is_limited else tail.own
    source = Changes(db, narrowed=narrowed)
    with broadcast.subscribed("deployments"), find(broadcast, Everything.DEPLOYMENTS, source) as changes:
        position = await _last_change(db) or 0 if after is None else CHANGES.position("after", after)[0]
        async for change in _follow(changes, position):
            yield change


@dataclass(frozen=True)
class Changes:
    """The source of the changes of one deployment's status, or of all deployments that match a filter."""

    db: Database
    deployment_id: UUID | None = None
    narrowed: Filter | None = None

    async def read(self, position: int) -> Piece[Change] | None:
        return await self._read(position, falling=False)

    async def read_end(self) -> Piece[Change] | None:
        piece = await self._read(0, falling=True)
        return None if piece is None else Piece(piece.entries[::-1], end=piece.end)

    def position(self, entry: Change) -> int:
        return entry.event.sequence

    async def _read(self, position: int, *, falling: bool) -> Piece[Change] | None:
        async with self.db.read() as session:
            found, end = await self._events(session, position, falling=falling)
            if self.deployment_id is None:
                found += await self._deletions(session, position, found, end, falling=falling)
            elif not found and end is None and await session.get(Deployment, self.deployment_id) is None:
                return None
            if self.narrowed is not None and end is None and len(found) < tail.BATCH_SIZE:
                end = await _last(session, position)  # changes that do not match are not read again
        found.sort(key=self.position, reverse=falling)
        return Piece(found[: tail.BATCH_SIZE], end=end if len(found) <= tail.BATCH_SIZE else None)

    async def _events(self, session: AsyncSession, position: int, *, falling: bool) -> tuple[list[Change], int | None]:
        """Return changes after `position`, and the last position read if some of them are unreadable, else None."""
        condition = StatusEvent.sequence > position
        if self.deployment_id is not None:
            condition = and_(condition, StatusEvent.deployment_id == self.deployment_id)
        if self.narrowed is not None:
            condition = and_(condition, *_matching(self.narrowed))
        order = _order(StatusEvent.sequence, falling=falling)
        end = None
        try:
            rows = list((await session.execute(_changes(condition).order_by(order).limit(tail.BATCH_SIZE))).all())
        except UNREADABLE:
            rows, end = await _read_singly(session, condition, order)
        return [Change(CHANGES.cursor([row[0].sequence]), *row) for row in rows], end

    async def _deletions(
        self, session: AsyncSession, position: int, found: list[Change], end: int | None, *, falling: bool
    ) -> list[Change]:
        """Return the deletions after `position`; only those in the range that was read if changes were unreadable."""
        conditions = [DeletedDeployment.sequence > position]
        if self.narrowed is not None:
            conditions += self.narrowed.conditions(DeletedDeployment)
        if end is not None:
            first = min(map(self.position, found), default=end) if falling else position
            conditions.append(DeletedDeployment.sequence.between(first, end))
        order = _order(DeletedDeployment.sequence, falling=falling)
        statement = select(DeletedDeployment).where(*conditions).order_by(order).limit(tail.BATCH_SIZE)
        return [_deletion(row) for row in await session.scalars(statement)]


def _order(sequence: InstrumentedAttribute[int], *, falling: bool) -> UnaryExpression[int]:
    return sequence.desc() if falling else sequence.asc()


def _deletion(row: DeletedDeployment) -> Change:
    event = StatusEvent(sequence=row.sequence, deployment_id=row.id, run_id=None, status=row.status, at=row.at)
    return Change(CHANGES.cursor([row.sequence]), event, None, is_deletion=True)


def _matching(narrowed: Filter) -> Iterator[ColumnElement[bool]]:
    """Yield the conditions for events that match the filter."""
    if others := narrowed.but_status():
        yield StatusEvent.deployment_id.in_(select(Deployment.id).where(*others))
    if narrowed.status_in is not None:
        earlier = aliased(StatusEvent)
        is_before = earlier.deployment_id == StatusEvent.deployment_id, earlier.sequence < StatusEvent.sequence
        before = select(earlier.status).where(*is_before).order_by(earlier.sequence.desc()).limit(1).scalar_subquery()
        yield or_(StatusEvent.status.in_(narrowed.status_in), before.in_(narrowed.status_in))


def _changes(condition: ColumnElement[bool]) -> Select[StatusEvent, Run]:
    return select(StatusEvent, Run).outerjoin(Run, Run.id == StatusEvent.run_id).where(condition)


async def _read_singly(
    session: AsyncSession, condition: ColumnElement[bool], order: UnaryExpression[int]
) -> tuple[list[Row[StatusEvent, Run]], int | None]:
    """Read changes one by one; return the readable ones, and the last position read, or None if there is no change."""
    statement = _changes(condition).with_only_columns(StatusEvent.sequence).order_by(order).limit(tail.BATCH_SIZE)
    sequences = list(await session.scalars(statement))
    found = []
    for sequence in sequences:
        try:
            found.append((await session.execute(_changes(StatusEvent.sequence == sequence))).one())
        except UNREADABLE as error:
            stored.report("change of a status", f"{sequence}: {error}")
    return found, max(sequences, default=None)


async def _follow(changes: Tail[Change], position: int) -> AsyncGenerator[Change]:
    """Yield the changes after `position` as they occur."""
    while (piece := await changes.after(position)) is not None:
        for change in piece.entries:
            position = change.event.sequence
            yield change


async def _last_change(db: Database, deployment_id: UUID | None = None) -> int | None:
    async with db.read() as session:
        if deployment_id is None:
            return await _last(session)
        of_deployment = StatusEvent.deployment_id == deployment_id
        return await session.scalar(select(func.max(StatusEvent.sequence)).where(of_deployment))


async def _last(session: AsyncSession, position: int = 0) -> int | None:
    """Return the position of the last change or deletion after `position`; None if there is none."""
    lasts = [
        await session.scalar(select(func.max(of.sequence)).where(of.sequence > position))
        for of in (StatusEvent, DeletedDeployment)
    ]
    return max((last for last in lasts if last is not None), default=None)
