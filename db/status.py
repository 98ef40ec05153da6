"""Every change of a status: each is one compare-and-set statement, and says whether it happened.

    deployment   PENDING | SUCCESS | FAILED -> RUNNING -> SUCCESS | FAILED, or what it was if the run never began
    run          QUEUED -> RUNNING -> SUCCESS | FAILED | CANCELED,   QUEUED -> CANCELED,   RUNNING -> QUEUED

A deployment is RUNNING exactly while one of its runs is QUEUED or RUNNING; both change in the same transaction, and it
writes their events.
"""

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
    """How a run ended.  `message` is one sentence for a person; `containers` are those on the host after the run."""

    status: RunStatus
    reason: FailureReason | None
    message: str
    containers: list[Container] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)  # of compose and of daos, in their order


def clock() -> ColumnElement[datetime]:
    """The time on PostgreSQL's clock, also in the middle of a transaction that was held up."""
    return func.clock_timestamp()


NOT_BEGUN = "The run was canceled before it had begun."
BEGUN_BEFORE = "The run was canceled while it waited to be played again; it may have changed the host."
KEPT = timedelta(days=7)  # for which a deletion can be read by those who follow the changes of all
_EVENT_LOCK = 0x64616F73  # PostgreSQL's advisory locks are numbers; this one is "daos"


async def announce(
    session: AsyncSession, deployment_id: UUID, status: DeploymentStatus, run_id: UUID | None
) -> StatusEvent:
    """Record that the deployment's status became `status`."""
    await _take_turn(session)
    event = StatusEvent(deployment_id=deployment_id, run_id=run_id, status=status)
    session.add(event)
    await session.flush()
    return event


async def remove(session: AsyncSession, deployment_id: UUID) -> Deployment | None:
    """Delete a deployment with its runs and logs; None when a run of it is active or it is not there."""
    await _take_turn(session)
    idle = Deployment.id == deployment_id, Deployment.status != DeploymentStatus.RUNNING
    deployment = await session.scalar(select(Deployment).where(*idle).with_for_update())
    if deployment is None:
        return None
    # The row of this event goes with the deployment; what it leaves is a number in the order of all changes.
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


async def _take_turn(session: AsyncSession) -> None:
    """Let no other transaction announce before this one has ended.

    It comes before any row is locked: who held a deployment and waited here could be waited for by the one in turn.
    """
    if session.get_bind().dialect.name == "postgresql":
        # A sequence is drawn before the commit: without the lock a reader could see event 8, move its cursor there,
        # and miss event 7, whose transaction commits later.
        await session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _EVENT_LOCK})


async def start(
    session: AsyncSession, deployment_id: UUID, action: RunAction, *, priority: int = 0, created_by: str = UNKNOWN
) -> Run | None:
    """Move the deployment to RUNNING and queue a run of it; None when a run of it is active or it is not there."""
    await _take_turn(session)
    started = await session.execute(
        update(Deployment)
        .where(Deployment.id == deployment_id, Deployment.status != DeploymentStatus.RUNNING)
        .values(status=DeploymentStatus.RUNNING, status_before=Deployment.status, updated_at=now())
    )
    if not _hit(started):
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
    """Move the run from QUEUED to RUNNING for `worker` and return it; None when it is not queued.

    With `lease`, None too where the worker was not seen for so many seconds: one that was away may have been given up.
    """
    where = [Run.id == run_id, Run.status == RunStatus.QUEUED]
    if lease is not None:
        where.append(_is_seen(worker, lease))
    run = await _hold(session, worker, *where)
    if run is not None:
        await run_events.add(session, run.id, [now()])
    return run


async def take_over(session: AsyncSession, run_id: UUID, worker: str) -> Run | None:
    """Hold a run that a worker known to be dead was playing; None when it is not running."""
    return await _hold(session, worker, Run.id == run_id, Run.status == RunStatus.RUNNING)


async def take_lost(
    session: AsyncSession,
    worker: str,
    lease: float,
    silence: float,
    *,
    node: str | None = None,
    unknown: Collection[UUID] = (),
) -> Sequence[Run]:
    """Give up workers not seen for `silence` seconds, and all others of `node`; hold the runs that nobody holds then.

    Of `node` there must be no other process.  `unknown` are runs of which `worker` itself does not know that it holds
    them.  As with `claim`, nothing is held by one not seen for `lease` seconds.
    """
    gone = Worker.seen_at < clock() - timedelta(seconds=silence)
    if node is not None:
        gone |= Worker.node == node
    await session.execute(delete(Worker).where(gone, Worker.id != worker))
    living = exists().where(Worker.id == Run.worker)
    unheld = or_(~living, and_(Run.worker == worker, Run.id.in_(unknown)))
    return await _hold_all(session, worker, Run.status == RunStatus.RUNNING, unheld, _is_seen(worker, lease))


async def _hold(session: AsyncSession, worker: str, *where: ColumnElement[bool]) -> Run | None:
    held = await _hold_all(session, worker, *where)
    return held[0] if held else None


async def _hold_all(session: AsyncSession, worker: str, *where: ColumnElement[bool]) -> Sequence[Run]:
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
    """Queue the run again, for any worker; False when the claim of `epoch` is no longer in force, or it is canceled."""
    held = (*_held(run_id, epoch), Run.cancel_requested_at.is_(None))
    statement = update(Run).where(*held).values(status=RunStatus.QUEUED, worker=None, progress=0.0)
    if not _hit(await session.execute(statement)):
        return False
    await run_phases.clear(session, run_id)
    await run_events.add(session, run_id, [now()])
    return True


async def advance(session: AsyncSession, run_id: UUID, epoch: int, progress: float) -> bool:
    """Set the run's progress, 0 to 1; False when the claim of `epoch` is no longer in force."""
    return _hit(await session.execute(update(Run).where(*_held(run_id, epoch)).values(progress=progress)))


async def make_current(session: AsyncSession, run_id: UUID, epoch: int) -> bool:
    """Record that the run has begun Up; False when the claim of `epoch` is no longer in force."""
    # A write, so that nobody can take the claim over before this transaction has ended.
    statement = update(Run).where(*_held(run_id, epoch)).values(worker=Run.worker).returning(Run.deployment_id)
    deployment_id = await session.scalar(statement)
    if deployment_id is None:
        return False
    await session.execute(update(Deployment).where(Deployment.id == deployment_id).values(current_run_id=run_id))
    return True


async def finish(session: AsyncSession, run_id: UUID, epoch: int, end: End) -> bool:
    """End the run and its deployment; False when the claim of `epoch` is no longer in force, and nothing is changed."""
    return await _end(session, end, *_held(run_id, epoch))


async def cancel_queued(session: AsyncSession, run_id: UUID) -> bool:
    """End a run that is queued; False when it is not.

    Its deployment becomes what it was before, unless the run was claimed once and handed back: that may have changed
    the host.  A run that is not queued stays as it is until the transaction ends.
    """
    await _take_turn(session)
    # Locked: otherwise a run that is handed back between this statement and `request_cancel` would escape both.
    statement = select(Run.status, Run.epoch).where(Run.id == run_id).with_for_update()
    found = (await session.execute(statement)).one_or_none()
    if found is None or found.status is not RunStatus.QUEUED:
        return False
    message = NOT_BEGUN if found.epoch == 0 else BEGUN_BEFORE
    end = End(RunStatus.CANCELED, FailureReason.CANCELED, message)
    queued = Run.id == run_id, Run.status == RunStatus.QUEUED, Run.epoch == found.epoch
    return await _end(session, end, *queued, restores=found.epoch == 0)


async def request_cancel(session: AsyncSession, run_id: UUID) -> bool:
    """Ask whoever holds the run to end it; False when it is not running.  Of several requests the first counts."""
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
    """The id of the deployment's newest run, the only one that can be queued or running; None without runs."""
    return await session.scalar(
        select(Run.id).where(Run.deployment_id == deployment_id).order_by(Run.number.desc()).limit(1)
    )


async def _end(session: AsyncSession, end: End, *where: ColumnElement[bool], restores: bool = False) -> bool:
    """End the run that `where` finds, and its deployment; `restores`: the deployment becomes what it was before."""
    values: dict[str, Any] = {
        "status": end.status,
        "reason": end.reason,
        "message": end.message,
        "containers": end.containers,
        "warnings": end.warnings,
    }
    if end.status is RunStatus.SUCCESS:
        values["progress"] = 1.0
    await _take_turn(session)
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


def _held(run_id: UUID, epoch: int) -> tuple[ColumnElement[bool], ...]:
    return Run.id == run_id, Run.epoch == epoch, Run.status == RunStatus.RUNNING


def _hit(result: Any) -> bool:
    """Whether a statement changed its row."""
    return isinstance(result, CursorResult) and result.rowcount == 1
