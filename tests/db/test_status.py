"""Every change of a status happens once or not at all, and is told of in order."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select, update

from db import status
from db.database import Database
from db.models import (
    DeletedDeployment,
    Deployment,
    DeploymentStatus,
    FailureReason,
    Run,
    RunAction,
    RunStatus,
    StatusEvent,
    now,
)
from tests import factories
from tests.support.locks import until_one_waits

PENDING, RUNNING, SUCCESS, FAILED = DeploymentStatus
ENDED = [RunStatus.SUCCESS, RunStatus.FAILED, RunStatus.CANCELED]


async def _stored(db: Database, run: Run) -> tuple[Run, Deployment]:
    async with db.read() as session:
        return await session.get_one(Run, run.id), await session.get_one(Deployment, run.deployment_id)


async def _events(db: Database, deployment_id: UUID) -> Sequence[tuple[DeploymentStatus, UUID | None]]:
    async with db.read() as session:
        events = select(StatusEvent.status, StatusEvent.run_id).where(StatusEvent.deployment_id == deployment_id)
        return [(event[0], event[1]) for event in await session.execute(events.order_by(StatusEvent.sequence))]


async def _start(db: Database, deployment_id: UUID) -> Run | None:
    async with db.write() as session:
        return await status.start(session, deployment_id, RunAction.UP)


async def test_starting_queues_a_run_and_moves_the_deployment(db: Database) -> None:
    deployment = await factories.deployment(db)
    run = await _start(db, deployment.id)
    assert run is not None
    stored, moved = await _stored(db, run)
    assert (stored.status, stored.number, stored.epoch, stored.progress) == (RunStatus.QUEUED, 1, 0, 0.0)
    assert (stored.started_at, stored.finished_at, stored.worker, stored.containers) == (None, None, None, [])
    assert moved.status is RUNNING
    assert moved.updated_at > deployment.updated_at
    assert await _events(db, deployment.id) == [(PENDING, None), (RUNNING, run.id)]


@pytest.mark.parametrize("last", ENDED)
async def test_a_deployment_can_be_started_again_after_each_end(db: Database, last: RunStatus) -> None:
    deployment = await factories.deployment(db)
    await factories.run(db, deployment, last)
    again = await _start(db, deployment.id)
    assert again is not None
    assert again.number == 2


@pytest.mark.parametrize("active", [RunStatus.QUEUED, RunStatus.RUNNING])
async def test_starting_is_refused_while_a_run_is_active(db: Database, active: RunStatus) -> None:
    run = await factories.run(db, to=active)
    assert await _start(db, run.deployment_id) is None
    assert len(await _events(db, run.deployment_id)) == 2


async def test_starting_what_is_not_there_is_refused(db: Database) -> None:
    assert await _start(db, uuid4()) is None


async def test_one_of_twenty_starts_at_once_is_accepted(db: Database) -> None:
    deployment = await factories.deployment(db)
    runs = await asyncio.gather(*(_start(db, deployment.id) for _ in range(20)))
    [run] = [run for run in runs if run is not None]
    assert await _events(db, deployment.id) == [(PENDING, None), (RUNNING, run.id)]


async def test_a_queued_run_is_claimed_once(db: Database) -> None:
    run = await factories.run(db)

    async def claim(worker: int) -> Run | None:
        async with db.write() as session:
            return await status.claim(session, run.id, f"worker-{worker}")

    claims = await asyncio.gather(*(claim(worker) for worker in range(5)))
    [claimed] = [claim for claim in claims if claim is not None]
    stored, deployment = await _stored(db, run)
    assert (stored.status, stored.epoch) == (RunStatus.RUNNING, 1)
    assert stored.worker == claimed.worker
    assert stored.started_at is not None
    assert deployment.status is RUNNING
    assert len(await _events(db, deployment.id)) == 2  # the deployment was RUNNING before


@pytest.mark.parametrize("other", [RunStatus.RUNNING, *ENDED])
async def test_only_a_queued_run_is_claimed(db: Database, other: RunStatus) -> None:
    run = await factories.run(db, to=other)
    async with db.write() as session:
        assert await status.claim(session, run.id, "late") is None


async def test_taking_over_begins_a_new_epoch_of_the_same_run(db: Database) -> None:
    run = await factories.run(db, to=RunStatus.RUNNING)
    async with db.write() as session:
        taken = await status.take_over(session, run.id, "new")
    assert taken is not None
    assert (taken.epoch, taken.worker, taken.started_at) == (run.epoch + 1, "new", run.started_at)


@pytest.mark.parametrize("other", [RunStatus.QUEUED, *ENDED])
async def test_only_a_running_run_is_taken_over(db: Database, other: RunStatus) -> None:
    run = await factories.run(db, to=other)
    async with db.write() as session:
        assert await status.take_over(session, run.id, "new") is None


async def test_progress_is_written_under_the_claim_in_force(db: Database) -> None:
    run = await factories.run(db, to=RunStatus.RUNNING)
    async with db.write() as session:
        assert await status.advance(session, run.id, run.epoch, 0.5)
        await status.take_over(session, run.id, "new")
        assert not await status.advance(session, run.id, run.epoch, 0.75)
    stored, _ = await _stored(db, run)
    assert stored.progress == 0.5


@pytest.mark.parametrize("other", [RunStatus.QUEUED, *ENDED])
async def test_only_a_running_run_makes_progress(db: Database, other: RunStatus) -> None:
    run = await factories.run(db, to=other)
    async with db.write() as session:
        assert not await status.advance(session, run.id, run.epoch, 0.5)


@pytest.mark.parametrize(
    ("to", "becomes"), [(RunStatus.SUCCESS, SUCCESS), (RunStatus.FAILED, FAILED), (RunStatus.CANCELED, FAILED)]
)
async def test_finishing_ends_run_and_deployment_together(
    db: Database, to: RunStatus, becomes: DeploymentStatus
) -> None:
    run = await factories.run(db, to=RunStatus.RUNNING)
    end = replace(factories.end(to, [factories.container()]), warnings=["First.", "Second."])
    async with db.write() as session:
        assert await status.finish(session, run.id, run.epoch, end)
    stored, deployment = await _stored(db, run)
    assert (stored.status, stored.reason, stored.message) == (to, end.reason, end.message)
    assert (stored.containers, stored.warnings) == (end.containers, end.warnings)
    assert (stored.worker, stored.progress) == (None, 1.0 if to is RunStatus.SUCCESS else 0.0)
    assert stored.finished_at is not None
    assert stored.started_at is not None
    assert stored.queued_at <= stored.started_at <= stored.finished_at
    assert deployment.status is becomes
    assert await _events(db, deployment.id) == [(PENDING, None), (RUNNING, run.id), (becomes, run.id)]


async def test_a_run_is_finished_once(db: Database) -> None:
    run = await factories.run(db, to=RunStatus.RUNNING)

    async def finish(to: RunStatus) -> bool:
        async with db.write() as session:
            return await status.finish(session, run.id, run.epoch, factories.end(to))

    finished = await asyncio.gather(*map(finish, ENDED * 2))
    assert sum(finished) == 1
    assert len(await _events(db, run.deployment_id)) == 3


async def test_a_claim_that_was_taken_over_finishes_nothing(db: Database) -> None:
    run = await factories.run(db, to=RunStatus.RUNNING)
    async with db.write() as session:
        await status.take_over(session, run.id, "new")
    async with db.write() as session:
        assert not await status.finish(session, run.id, run.epoch, factories.end())
    stored, deployment = await _stored(db, run)
    assert (stored.status, deployment.status) == (RunStatus.RUNNING, RUNNING)
    assert len(await _events(db, deployment.id)) == 2


@pytest.mark.parametrize("other", [RunStatus.QUEUED, *ENDED])
async def test_only_a_running_run_is_finished(db: Database, other: RunStatus) -> None:
    run = await factories.run(db, to=other)
    before = await _events(db, run.deployment_id)
    async with db.write() as session:
        assert not await status.finish(session, run.id, run.epoch, factories.end())
    assert await _events(db, run.deployment_id) == before


@pytest.mark.parametrize(
    ("last", "before"), [(None, PENDING), (RunStatus.SUCCESS, SUCCESS), (RunStatus.FAILED, FAILED)]
)
async def test_a_run_canceled_before_it_began_leaves_the_status_what_it_was(
    db: Database, last: RunStatus | None, before: DeploymentStatus
) -> None:
    deployment = await factories.deployment(db)
    if last is not None:
        await factories.run(db, deployment, last)
    run = await factories.run(db, deployment)
    async with db.write() as session:
        assert await status.cancel_queued(session, run.id)
        assert not await status.cancel_queued(session, run.id)
        assert await status.claim(session, run.id, "late") is None
    stored, deployment = await _stored(db, run)
    assert (stored.status, stored.reason) == (RunStatus.CANCELED, FailureReason.CANCELED)
    assert (stored.message, stored.started_at) == ("The run was canceled before it had begun.", None)
    assert deployment.status is before
    assert (await _events(db, deployment.id))[-2:] == [(RUNNING, run.id), (before, run.id)]


async def test_two_runs_canceled_before_they_began_leave_the_status_what_it_was(db: Database) -> None:
    deployment = await factories.deployment(db)
    await factories.run(db, deployment, RunStatus.SUCCESS)
    for _ in range(2):
        run = await factories.run(db, deployment)
        async with db.write() as session:
            assert await status.cancel_queued(session, run.id)
    assert (await _stored(db, run))[1].status is SUCCESS


async def test_a_run_canceled_after_it_was_handed_back_may_have_changed_the_host(db: Database) -> None:
    deployment = await factories.deployment(db)
    await factories.run(db, deployment, RunStatus.SUCCESS)
    run = await factories.run(db, deployment, RunStatus.RUNNING)
    async with db.write() as session:
        assert await status.hand_back(session, run.id, run.epoch)
        assert await status.cancel_queued(session, run.id)
    stored, deployment = await _stored(db, run)
    assert (stored.status, deployment.status) == (RunStatus.CANCELED, FAILED)
    assert stored.message is not None
    assert "may have changed the host" in stored.message


async def test_a_run_that_is_handed_back_beside_its_cancel_does_not_escape_it(postgresql_db: Database) -> None:
    db = postgresql_db
    run = await factories.run(db, to=RunStatus.RUNNING)

    async def hand_back() -> bool:
        async with db.write() as session:
            return await status.hand_back(session, run.id, run.epoch)

    async with db.write() as session:
        assert not await status.cancel_queued(session, run.id)
        handing = asyncio.create_task(hand_back())
        await until_one_waits(db)
        assert await status.request_cancel(session, run.id)
    assert not await handing


@pytest.mark.parametrize("then", [RunStatus.FAILED, RunStatus.CANCELED])
async def test_the_current_run_is_the_last_that_began_up(db: Database, then: RunStatus) -> None:
    deployment = await factories.deployment(db)

    async def current() -> UUID | None:
        async with db.read() as session:
            return (await session.get_one(Deployment, deployment.id)).current_run_id

    await factories.run(db, deployment, then)  # and did not get as far
    assert await current() is None
    for to in (RunStatus.SUCCESS, then):
        run = await factories.run(db, deployment, RunStatus.RUNNING)
        async with db.write() as session:
            assert await status.make_current(session, run.id, run.epoch)
            assert await status.finish(session, run.id, run.epoch, factories.end(to))
        assert await current() == run.id
    for action in (RunAction.UP, RunAction.DOWN):
        await factories.run(db, deployment, then, action=action)
        assert await current() == run.id
    await factories.run(db, deployment, RunStatus.SUCCESS, action=RunAction.DOWN)
    assert await current() is None


async def test_a_claim_that_was_taken_over_makes_no_run_current(db: Database) -> None:
    run = await factories.run(db, to=RunStatus.RUNNING)
    async with db.write() as session:
        await status.take_over(session, run.id, "new")
        assert not await status.make_current(session, run.id, run.epoch)
    assert (await _stored(db, run))[1].current_run_id is None


@pytest.mark.parametrize("other", [RunStatus.RUNNING, *ENDED])
async def test_only_a_queued_run_is_canceled_at_once(db: Database, other: RunStatus) -> None:
    run = await factories.run(db, to=other)
    async with db.write() as session:
        assert not await status.cancel_queued(session, run.id)


async def test_a_claim_and_a_cancel_at_once_have_one_winner(db: Database) -> None:
    async def claim(run: Run) -> bool:
        async with db.write() as session:
            return await status.claim(session, run.id, "worker") is not None

    async def cancel(run: Run) -> bool:
        async with db.write() as session:
            return await status.cancel_queued(session, run.id)

    for _ in range(5):
        run = await factories.run(db)
        assert sum(await asyncio.gather(claim(run), cancel(run))) == 1


async def test_a_running_run_is_asked_to_end_and_the_first_time_counts(db: Database) -> None:
    run = await factories.run(db, to=RunStatus.RUNNING)

    async def request() -> Run:
        async with db.write() as session:
            assert await status.request_cancel(session, run.id)
        return (await _stored(db, run))[0]

    first, second = await request(), await request()
    assert first.status is RunStatus.RUNNING
    assert first.cancel_requested_at is not None
    assert second.cancel_requested_at == first.cancel_requested_at


@pytest.mark.parametrize("other", [RunStatus.QUEUED, *ENDED])
async def test_only_a_running_run_is_asked_to_end(db: Database, other: RunStatus) -> None:
    run = await factories.run(db, to=other)
    async with db.write() as session:
        assert not await status.request_cancel(session, run.id)


@pytest.mark.parametrize("current", RunStatus)
async def test_a_deployment_is_running_exactly_while_a_run_is_active(db: Database, current: RunStatus) -> None:
    run = await factories.run(db, to=current)
    _, deployment = await _stored(db, run)
    assert deployment.status is RUNNING if current not in ENDED else deployment.status is not RUNNING


async def test_a_deployment_that_is_deleted_leaves_a_row_for_a_while(db: Database) -> None:
    old, deployment = await factories.deployment(db), await factories.deployment(db)
    run = await factories.run(db, deployment, RunStatus.RUNNING)
    async with db.write() as session:
        assert await status.remove(session, deployment.id) is None
        assert await status.remove(session, uuid4()) is None
        assert await status.remove(session, old.id) is not None
    async with db.write() as session:
        await session.execute(update(DeletedDeployment).values(at=now() - status.KEPT))
        await status.finish(session, run.id, run.epoch, factories.end())
        assert await status.remove(session, deployment.id) is not None
    async with db.read() as session:
        [row] = await session.scalars(select(DeletedDeployment))
        assert list(await session.scalars(select(StatusEvent))) == []
    shown = (row.id, row.host_id, row.package_id, row.project_name, row.status)
    assert shown == (deployment.id, deployment.host_id, deployment.package_id, deployment.project_name, SUCCESS)
    await factories.deployment(db)
    async with db.read() as session:
        assert (await session.scalar(select(StatusEvent.sequence)) or 0) > row.sequence


async def test_a_deletion_waits_for_its_turn(postgresql_db: Database) -> None:
    db = postgresql_db
    one, two = await factories.deployment(db), await factories.deployment(db)

    async def remove() -> bool:
        async with db.write() as session:
            return await status.remove(session, two.id) is not None

    async with db.write() as session:
        assert await status.start(session, one.id, RunAction.UP) is not None
        removing = asyncio.create_task(remove())
        await until_one_waits(db)
        assert await status.start(session, two.id, RunAction.UP) is not None
    assert not await removing


@pytest.mark.parametrize("current", RunStatus)
async def test_the_newest_run_is_the_one_that_can_be_active_or_has_just_ended(db: Database, current: RunStatus) -> None:
    deployment = await factories.deployment(db)
    async with db.read() as session:
        assert await status.newest_run(session, deployment.id) is None
    await factories.run(db, deployment, RunStatus.FAILED)
    run = await factories.run(db, deployment, current)
    async with db.read() as session:
        assert await status.newest_run(session, deployment.id) == run.id


async def test_an_event_is_visible_only_after_all_before_it(postgresql_db: Database) -> None:
    # A reader moves its cursor behind the last event it sees, and would miss one that appears before it later.
    db = postgresql_db
    one, two = await factories.deployment(db), await factories.deployment(db)
    async with db.write() as session:
        first = await status.start(session, one.id, RunAction.UP)
        second = asyncio.create_task(_start(db, two.id))
        await until_one_waits(db)
        assert len(await _events(db, two.id)) == 1
    later = await second
    assert first is not None
    assert later is not None
    async with db.read() as session:
        order = await session.scalars(select(StatusEvent.run_id).order_by(StatusEvent.sequence))
        assert [run_id for run_id in order if run_id] == [first.id, later.id]


async def test_starting_many_does_not_lock_out_a_start_of_one_of_them(postgresql_db: Database) -> None:
    # Whoever held a deployment and waited for its turn to announce would wait for ever for one who waits for it.
    db = postgresql_db
    one, two = await factories.deployment(db), await factories.deployment(db)
    async with db.write() as session:
        assert await status.start(session, one.id, RunAction.UP) is not None
        other = asyncio.create_task(_start(db, two.id))
        await until_one_waits(db)
        assert await status.start(session, two.id, RunAction.UP) is not None
    assert await other is None
