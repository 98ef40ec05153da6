"""Every change of a status.  Each is one compare-and-set statement and returns whether it took effect.

    deployment   PENDING | SUCCESS | FAILED -> RUNNING -> SUCCESS | FAILED, or the earlier one if the run never began
    run          QUEUED -> RUNNING -> SUCCESS | FAILED | CANCELED,   QUEUED -> CANCELED,   RUNNING -> QUEUED

A deployment is RUNNING exactly while one of its runs is QUEUED or RUNNING.  Both change in the same transaction, which
also writes their events.
"""

# Longer than 300 lines: every change of a status, next to each other.

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, CursorResult, and_, delete, exists, func, or_, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from db import run_events, run_phases
from db.containers import Container
from db.models import (
    UNKNOWN,
    DeletedDeployment,
    Deployment,
    DeploymentStatus,
    FailureReason,
    Run,
    RunAction,
    RunStatus,
    StatusEvent,
    Worker,
    now,
)


@dataclass(frozen=True)
class End:
    """The end of a run.  `message` is one sentence for a person; `containers` are those on the host after the run."""

    status: RunStatus
    reason: FailureReason | None
    message: str
    containers: list[Container] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)  # of Compose and of daos, in their order


def clock() -> ColumnElement[datetime]:
    """Return the current time on PostgreSQL's clock, accurate also in a transaction that was delayed."""
    return func.clock_timestamp()


NOT_BEGUN = "The run was canceled before it had begun."
BEGUN_BEFORE = "The run was canceled while it waited to be played again; it may have changed the host."
KEPT = timedelta(days=7)  # for which subscribers to the changes of all deployments can read a deletion
_EVENT_LOCK = 0x64616F73  # the number of a PostgreSQL advisory lock: "daos" in ASCII


async def announce(
    session: AsyncSession, deployment_id: UUID, status: DeploymentStatus, run_id: UUID | None
) -> StatusEvent:
    """Add the event that the deployment's status became `status`, and return it."""
    await _lock_events(session)
    event = StatusEvent(deployment_id=deployment_id, run_id=run_id, status=status)
    session.add(event)
    await session.flush()
    return event


async def remove(session: AsyncSession, deployment_id: UUID) -> Deployment | None:
    """Delete a deployment with its runs and logs, and return it; None if it has an active run or does not exist."""
    await _lock_events(session)
    idle = Deployment.id == deployment_id, Deployment.status != DeploymentStatus.RUNNING
    deployment = await session.scalar(select(Deployment).where(*idle).with_for_update())
    if deployment is None:
        return None
    # This event is deleted with the deployment; it only provides a number in the order of all changes.
    event = await announce(session, deployment.id, deployment.status, None)
    await session.execute(delete(Deployment).where(*idle))
    session.add(
        DeletedDeployment(
            id=deployment.id,
            sequence=event.sequence,
            host_id=deployment.host_id,
            package_id=deployment.package_id,
            project_name=deployment.project_name,
            status=deployment.status,
        )
    )
    await session.execute(delete(DeletedDeployment).where(DeletedDeployment.at < now() - KEPT))
    return deployment


async def _lock_events(session: AsyncSession) -> None:
    """Prevent all other transactions from adding events until this one has ended.

    Call it before locking any row: a transaction that waits here with a locked deployment would deadlock with the
    holder of this lock.
    """
    if session.get_bind().dialect.name == "postgresql":
        # A sequence number is assigned before the commit: without the lock a reader could see event 8, move its cursor
        # there, and miss event 7, whose transaction commits later.
        await session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _EVENT_LOCK})


async def start(
    session: AsyncSession, deployment_id: UUID, action: RunAction, *, priority: int = 0, created_by: str = UNKNOWN
) -> Run | None:
    """Move the deployment to RUNNING and return a new queued run; None if it has an active run or does not exist."""
    await _lock_events(session)
    started = await session.execute(
        update(Deployment)
        .where(Deployment.id == deployment_id, Deployment.status != DeploymentStatus.RUNNING)
        .values(status=DeploymentStatus.RUNNING, status_before=Deployment.status, updated_at=now())
    )
    if not _has_changed(started):
        return None
    last = await session.scalar(select(func.max(Run.number)).where(Run.deployment_id == deployment_id))
    run = Run(
        deployment_id=deployment_id,
        number=(last or 0) + 1,
        action=action,
        status=RunStatus.QUEUED,
        containers=[],
        warnings=[],
        priority=priority,
        created_by=created_by,
    )
    session.add(run)
    await session.flush()
    await run_events.add(session, run.id, [run.queued_at])
    await announce(session, deployment_id, DeploymentStatus.RUNNING, run.id)
    return run


async def claim(session: AsyncSession, run_id: UUID, worker: str, lease: float | None = None) -> Run | None:
    """Move the run from QUEUED to RUNNING for `worker` and return it; None if it is not queued.

    With `lease`, also None if the worker was not seen for so many seconds: others may have declared it dead.
    """
    where = [Run.id == run_id, Run.status == RunStatus.QUEUED]
    if lease is not None:
        where.append(_is_seen(worker, lease))
    run = await _claim(session, worker, *where)
    if run is not None:
        await run_events.add(session, run.id, [now()])
    return run


async def take_over(session: AsyncSession, run_id: UUID, worker: str) -> Run | None:
    """Claim a run of a worker known to be dead for `worker` and return it; None if it is not running."""
    return await _claim(session, worker, Run.id == run_id, Run.status == RunStatus.RUNNING)


async def take_lost(
    session: AsyncSession,
    worker: str,
    lease: float,
    silence: float,
    *,
    node: str | None = None,
    unknown: Collection[UUID] = (),
) -> Sequence[Run]:
    """Delete workers not seen for `silence` seconds, and all others of `node`; claim the runs left without a worker.

    `node` must have no other process.  `unknown` are runs that are assigned to `worker` without its knowledge.  As in
    `claim`, a worker not seen for `lease` seconds claims nothing.
    """
    is_dead = Worker.seen_at < clock() - timedelta(seconds=silence)
    if node is not None:
        is_dead |= Worker.node == node
    await session.execute(delete(Worker).where(is_dead, Worker.id != worker))
    is_alive = exists().where(Worker.id == Run.worker)
    is_lost = or_(~is_alive, and_(Run.worker == worker, Run.id.in_(unknown)))
    return await _claim_all(session, worker, Run.status == RunStatus.RUNNING, is_lost, _is_seen(worker, lease))


async def _claim(session: AsyncSession, worker: str, *where: ColumnElement[bool]) -> Run | None:
    claimed = await _claim_all(session, worker, *where)
    return claimed[0] if claimed else None


async def _claim_all(session: AsyncSession, worker: str, *where: ColumnElement[bool]) -> Sequence[Run]:
    statement = (
        update(Run)
        .where(*where)
        .values(
            status=RunStatus.RUNNING,
            worker=worker,
            epoch=Run.epoch + 1,
            started_at=func.coalesce(Run.started_at, now()),
        )
        .returning(Run)
    )
    return (await session.execute(statement)).scalars().all()


async def hand_back(session: AsyncSession, run_id: UUID, epoch: int) -> bool:
    """Requeue the run for any worker; False if the claim of `epoch` is no longer valid or the run is to be canceled."""
    claimed = (*_is_claimed(run_id, epoch), Run.cancel_requested_at.is_(None))
    statement = update(Run).where(*claimed).values(status=RunStatus.QUEUED, worker=None, progress=0.0)
    if not _has_changed(await session.execute(statement)):
        return False
    await run_phases.clear(session, run_id)
    await run_events.add(session, run_id, [now()])
    return True


async def advance(session: AsyncSession, run_id: UUID, epoch: int, progress: float) -> bool:
    """Set the run's progress, 0 to 1; False if the claim of `epoch` is no longer valid."""
    statement = update(Run).where(*_is_claimed(run_id, epoch)).values(progress=progress)
    return _has_changed(await session.execute(statement))


async def make_current(session: AsyncSession, run_id: UUID, epoch: int) -> bool:
    """Record that the run has begun Up; False if the claim of `epoch` is no longer valid."""
    # A write, so that no other worker can claim the run before this transaction has ended.
    statement = update(Run).where(*_is_claimed(run_id, epoch)).values(worker=Run.worker).returning(Run.deployment_id)
    deployment_id = await session.scalar(statement)
    if deployment_id is None:
        return False
    await session.execute(update(Deployment).where(Deployment.id == deployment_id).values(current_run_id=run_id))
    return True


async def finish(session: AsyncSession, run_id: UUID, epoch: int, end: End) -> bool:
    """End the run and move its deployment; False, with nothing changed, if the claim of `epoch` is no longer valid."""
    return await _end(session, end, *_is_claimed(run_id, epoch))


async def cancel_queued(session: AsyncSession, run_id: UUID) -> bool:
    """End a queued run; False if it is not queued.

    Its deployment returns to its earlier status, unless the run was claimed once and requeued: that may have changed
    the host.  The status of a run that is not queued cannot change until the transaction ends.
    """
    await _lock_events(session)
    # Locked: otherwise a run that is requeued between this statement and `request_cancel` would escape both.
    statement = select(Run.status, Run.epoch).where(Run.id == run_id).with_for_update()
    found = (await session.execute(statement)).one_or_none()
    if found is None or found.status is not RunStatus.QUEUED:
        return False
    message = NOT_BEGUN if found.epoch == 0 else BEGUN_BEFORE
    end = End(RunStatus.CANCELED, FailureReason.CANCELED, message)
    queued = Run.id == run_id, Run.status == RunStatus.QUEUED, Run.epoch == found.epoch
    return await _end(session, end, *queued, restores=found.epoch == 0)


async def request_cancel(session: AsyncSession, run_id: UUID) -> bool:
    """Ask the run's worker to end it; False if it is not running.  Only the first of several requests is recorded."""
    at = now()
    statement = (
        update(Run)
        .where(Run.id == run_id, Run.status == RunStatus.RUNNING)
        .values(cancel_requested_at=func.coalesce(Run.cancel_requested_at, at))
        .returning(Run.cancel_requested_at)
    )
    requested_at = await session.scalar(statement)
    if requested_at == at:
        await run_events.add(session, run_id, [at])
    return requested_at is not None


async def newest_run(session: AsyncSession, deployment_id: UUID) -> UUID | None:
    """Return the id of the deployment's newest run, the only one that can be active; None if it has no runs."""
    return await session.scalar(
        select(Run.id).where(Run.deployment_id == deployment_id).order_by(Run.number.desc()).limit(1)
    )


async def _end(session: AsyncSession, end: End, *where: ColumnElement[bool], restores: bool = False) -> bool:
    """End the run selected by `where` and move its deployment; with `restores`, back to its earlier status."""
    values: dict[str, Any] = {
        "status": end.status,
        "reason": end.reason,
        "message": end.message,
        "containers": end.containers,
        "warnings": end.warnings,
    }
    if end.status is RunStatus.SUCCESS:
        values["progress"] = 1.0
    await _lock_events(session)
    finished_at = now()
    statement = update(Run).where(*where).values(finished_at=finished_at, worker=None, **values)
    ended = (await session.execute(statement.returning(Run.id, Run.deployment_id, Run.action))).one_or_none()
    if ended is None:
        return False
    succeeded = end.status is RunStatus.SUCCESS
    await run_phases.close(session, ended.id, ended.action, finished_at, succeeded=succeeded)
    await run_events.add(session, ended.id, [finished_at])
    changes: dict[str, Any] = {"status": DeploymentStatus.SUCCESS if succeeded else DeploymentStatus.FAILED}
    if restores:
        changes["status"] = Deployment.status_before
    if succeeded and ended.action is RunAction.DOWN:
        changes["current_run_id"] = None
    running = Deployment.id == ended.deployment_id, Deployment.status == DeploymentStatus.RUNNING
    moved = update(Deployment).where(*running).values(updated_at=now(), **changes).returning(Deployment.status)
    await announce(session, ended.deployment_id, (await session.execute(moved)).scalar_one(), ended.id)
    return True


def _is_seen(worker: str, lease: float) -> ColumnElement[bool]:
    return exists().where(Worker.id == worker, Worker.seen_at > clock() - timedelta(seconds=lease))


def _is_claimed(run_id: UUID, epoch: int) -> tuple[ColumnElement[bool], ...]:
    return Run.id == run_id, Run.epoch == epoch, Run.status == RunStatus.RUNNING


def _has_changed(result: Any) -> bool:
    """Return whether a statement changed its row."""
    return isinstance(result, CursorResult) and result.rowcount == 1
