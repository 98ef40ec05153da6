"""Runs: start, cancel, and watch them."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from db import status
from db.broadcast import Broadcast, Everything
from db.database import Database
from db.models import (
    UNKNOWN,
    Deployment,
    FailureReason,
    LogEntry,
    Run,
    RunAction,
    RunPhase,
    RunStatus,
    RunTrigger,
)
from resolvers import idempotency, ids, names
from resolvers.errors import NotFound, RunInProgress
from resolvers.idempotency import Key, Request
from resolvers.paging import Listing
from resolvers.rules import Check
from runner import store
from runner.engine.base import Engine
from runner.store import Place

RUNS = Listing("allRuns", Run, key=(Run.id,))
OF_DEPLOYMENT = Listing("runs", Run, key=(Run.number,), parent=Run.deployment_id)
LOG = Listing("log", LogEntry, key=(LogEntry.sequence,), descending=False, parent=LogEntry.run_id)
DEPLOYMENT_LOG = Listing(
    "deploymentLog",
    LogEntry,
    key=(Run.number, LogEntry.sequence),
    descending=False,
    parent=Run.deployment_id,
    join=(Run, Run.id == LogEntry.run_id),
)


MAX_AT_ONCE = 100  # runs that one request can start


@dataclass(frozen=True)
class Filter:
    """Which runs a list contains; a condition that is None is not applied."""

    status_in: frozenset[RunStatus] | None = None
    reason_in: frozenset[FailureReason] | None = None
    action_in: frozenset[RunAction] | None = None
    trigger_in: frozenset[RunTrigger] | None = None
    deployment_id: str | None = None
    host_id: str | None = None
    created_by: str | None = None
    queued_after: datetime | None = None
    queued_before: datetime | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        """Return the conditions of the filter, all of which must hold."""
        conditions: list[ColumnElement[bool]] = []
        if self.status_in is not None:
            conditions.append(Run.status.in_(self.status_in))
        if self.reason_in is not None:
            conditions.append(Run.reason.in_(self.reason_in))
        if self.action_in is not None:
            conditions.append(Run.action.in_(self.action_in))
        if self.trigger_in is not None:
            conditions.append(Run.trigger.in_(self.trigger_in))
        # An unknown or malformed id is not an error: it matches nothing.
        if self.deployment_id is not None:
            conditions.append(Run.deployment_id == ids.parse(self.deployment_id))
        if self.host_id is not None:
            on_host = select(Deployment.id).where(Deployment.host_id == ids.parse(self.host_id))
            conditions.append(Run.deployment_id.in_(on_host))
        if self.created_by is not None:
            conditions.append(names.equals(Run.created_by, self.created_by))
        if self.queued_after is not None:
            conditions.append(Run.queued_at > self.queued_after)
        if self.queued_before is not None:
            conditions.append(Run.queued_at < self.queued_before)
        return conditions


@dataclass(frozen=True)
class Turn:
    """The place of a run in the queue: before runs of lower `priority`, which is from -100 to 100."""

    priority: int = 0


async def get(db: Database, run_id: str) -> Run:
    """Return the run.  Raises: NotFound."""
    async with db.read() as session:
        return await _get(session, run_id)


async def get_many(db: Database, run_ids: Sequence[UUID]) -> dict[UUID, Run]:
    """Return the existing runs among `run_ids`, by id."""
    async with db.read() as session:
        return {run.id: run for run in await session.scalars(select(Run).where(Run.id.in_(run_ids)))}


async def latest_of(db: Database, deployment_ids: Sequence[UUID]) -> dict[UUID, Run]:
    """Return the newest run of each deployment that has one."""
    newest = (
        select(Run.deployment_id, func.max(Run.number).label("number"))
        .where(Run.deployment_id.in_(deployment_ids))
        .group_by(Run.deployment_id)
        .subquery()
    )
    same = (Run.deployment_id == newest.c.deployment_id) & (Run.number == newest.c.number)
    async with db.read() as session:
        return {run.deployment_id: run for run in await session.scalars(select(Run).join(newest, same))}


async def phases_of(db: Database, run_ids: Sequence[UUID]) -> dict[UUID, list[RunPhase]]:
    """Return the phases of each run that has begun or ended, in their order."""
    known = select(RunPhase).where(RunPhase.run_id.in_(run_ids)).order_by(RunPhase.position)
    phases: dict[UUID, list[RunPhase]] = defaultdict(list)
    async with db.read() as session:
        for phase in await session.scalars(known):
            if phase.phase is not None:  # None: a phase of a newer release
                phases[phase.run_id].append(phase)
    return phases


async def places_of(db: Database, engine: Engine, run_ids: Sequence[UUID]) -> dict[UUID, Place]:
    """Return the place in the queue of each run that is queued."""
    async with db.limited_to(None).read() as session:  # the place is among all runs
        return await store.places(session, run_ids, await engine.capacity(session))


async def start(
    db: Database,
    engine: Engine,
    broadcast: Broadcast,
    deployment_ids: Sequence[str],
    action: RunAction,
    *,
    turn: Turn | None = None,
    created_by: str = UNKNOWN,
    key: Key | None = None,
) -> list[tuple[Deployment, Run]]:
    """Queue a run of each deployment, or of none if one fails, and return them in the order of `deployment_ids`.

    If an earlier request with `key` queued runs, return those.  `created_by` is the token's name in the audit log.
    Raises: InvalidInput, NotFound, RunInProgress.
    """
    turn = turn or Turn()
    check = Check()
    _check_number(check, deployment_ids)
    check.priority("priority", turn.priority)
    request = Request.of(key, check, {"deployment_ids": deployment_ids, "action": action, **asdict(turn)})
    check.done()
    started: dict[str, tuple[Deployment, Run]] = {}
    async with db.write() as session:
        claim = await idempotency.claim(session, db.keyring, request)
        if claim.earlier:
            return await _earlier(session, claim.earlier)
        # In the same order for all requests: two requests for the same deployments must not deadlock.
        for deployment_id in sorted(deployment_ids, key=str.lower):
            started[deployment_id] = await _start(session, engine, deployment_id, action, turn, created_by=created_by)
        in_order = [started[deployment_id] for deployment_id in deployment_ids]
        claim.made(*(run.id for _, run in in_order))
    engine.wake()  # after the commit, or the engine would not see the rows
    broadcast.notify(*(deployment.id for deployment, _ in in_order), Everything.DEPLOYMENTS)
    return in_order


async def cancel(db: Database, engine: Engine, broadcast: Broadcast, run_id: str) -> Run:
    """Cancel a run and return it; one that is being played becomes CANCELED when its work has ended everywhere.

    That includes its processes on the server and on the host.  A run that has not begun leaves its deployment's status
    unchanged; one that has ended is not changed.
    Raises: NotFound.
    """
    async with db.write() as session:
        key = (await _get(session, run_id)).id
        ended = await status.cancel_queued(session, key)
        if not ended:
            await status.request_cancel(session, key)
        run = await _get(session, run_id)
    if ended:
        broadcast.notify(run.id, run.deployment_id, Everything.DEPLOYMENTS)
    else:
        broadcast.notify(run.id)
        engine.cancel(run.id)
    return run


async def _start(
    session: AsyncSession, engine: Engine, deployment_id: str, action: RunAction, turn: Turn, *, created_by: str
) -> tuple[Deployment, Run]:
    key = ids.parse(deployment_id)
    run = None
    if key is not None:
        run = await status.start(session, key, action, priority=turn.priority, created_by=created_by)
    deployment = await session.get(Deployment, key, populate_existing=True) if key is not None else None
    if deployment is None:
        raise NotFound(kind="Deployment", id=deployment_id)
    if run is None:
        raise RunInProgress(id=deployment_id, run=await status.newest_run(session, deployment.id))
    await engine.enqueue(session, run)
    return deployment, run


async def _earlier(session: AsyncSession, run_ids: Sequence[str]) -> list[tuple[Deployment, Run]]:
    """Return the current runs of an earlier request, with their deployments.  Raises: NotFound."""
    is_earlier = Run.id.in_([UUID(run_id) for run_id in run_ids])
    statement = select(Deployment, Run).join(Run, Run.deployment_id == Deployment.id).where(is_earlier)
    found = {str(run.id): (deployment, run) for deployment, run in await session.execute(statement)}
    for run_id in run_ids:
        if run_id not in found:  # deleted with its deployment
            raise NotFound(kind="Run", id=run_id)
    return [found[run_id] for run_id in run_ids]


def _check_number(check: Check, deployment_ids: Sequence[str]) -> None:
    if not 1 <= len(deployment_ids) <= MAX_AT_ONCE:
        check.add("deployment_ids", "RANGE", f"deployment_ids must have from 1 to {MAX_AT_ONCE} ids.")
    if len({deployment_id.lower() for deployment_id in deployment_ids}) < len(deployment_ids):
        check.add("deployment_ids", "TWICE", "deployment_ids must not have an id twice.")


async def _get(session: AsyncSession, run_id: str) -> Run:
    key = ids.parse(run_id)
    run = await session.get(Run, key, populate_existing=True) if key is not None else None
    if run is None:
        raise NotFound(kind="Run", id=run_id)
    return run
