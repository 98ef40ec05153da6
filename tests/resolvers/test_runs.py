"""Runs, on both engines; how their logs are watched is in test_run_changes."""

import asyncio
import re
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select, text, update

from db import status
from db.broadcast import Broadcast, Everything
from db.database import Database
from db.models import DeploymentStatus, FailureReason, Run, RunAction, RunStatus, RunTrigger, now
from resolvers import deployments, runs
from resolvers.errors import InvalidInput, NotFound, RunInProgress
from resolvers.idempotency import Key
from resolvers.paging import Arguments
from resolvers.runs import RUNS, Filter, Turn
from tests import factories
from tests.support.attacks import UNKNOWN
from tests.support.recording_engine import RecordingEngine

ENDED = [RunStatus.SUCCESS, RunStatus.FAILED, RunStatus.CANCELED]


async def _stored(db: Database) -> list[Run]:
    async with db.read() as session:
        return list(await session.scalars(select(Run).order_by(Run.id)))


@pytest.mark.parametrize("action", RunAction)
async def test_a_run_is_queued_and_told_to_the_engine_after_the_commit(
    db: Database, broadcast: Broadcast, engine: RecordingEngine, action: RunAction
) -> None:
    deployment = await factories.deployment(db)
    with broadcast.listen(deployment.id) as it, broadcast.listen(Everything.DEPLOYMENTS) as all_of_them:
        [(moved, run)] = await runs.start(db, engine, broadcast, [str(deployment.id)], action)
        await asyncio.gather(it.wait(5), all_of_them.wait(5))
    assert (moved.id, moved.status) == (deployment.id, DeploymentStatus.RUNNING)
    assert (run.deployment_id, run.status, run.action, run.number) == (deployment.id, RunStatus.QUEUED, action, 1)
    assert (engine.enqueued, engine.wakes) == ([run.id], 1)
    assert (await runs.get(db, str(run.id))).status is RunStatus.QUEUED


async def test_many_are_started_in_the_order_of_their_ids_in_the_request(
    db: Database, broadcast: Broadcast, engine: RecordingEngine
) -> None:
    keys = [str((await factories.deployment(db)).id) for _ in range(5)]
    wanted = [keys[3], keys[0].upper(), keys[4], keys[1]]
    started = await runs.start(db, engine, broadcast, wanted, RunAction.UP)
    assert [str(deployment.id) for deployment, _ in started] == [key.lower() for key in wanted]
    assert [run.deployment_id for _, run in started] == [deployment.id for deployment, _ in started]
    assert engine.wakes == 1


@pytest.mark.parametrize("trouble", ["unknown", "malformed", "running"])
async def test_all_are_started_or_none(
    db: Database, broadcast: Broadcast, engine: RecordingEngine, trouble: str
) -> None:
    keys = [str((await factories.deployment(db)).id) for _ in range(3)]
    running = await factories.run(db)
    bad = {"unknown": str(uuid4()), "malformed": "\ud800", "running": str(running.deployment_id)}[trouble]
    with pytest.raises(RunInProgress if trouble == "running" else NotFound):
        await runs.start(db, engine, broadcast, [*keys, bad], RunAction.UP)
    assert [run.id for run in await _stored(db)] == [running.id]
    statuses = {(await deployments.get(db, key)).status for key in keys}
    assert statuses == {DeploymentStatus.PENDING}
    assert engine.wakes == 0


async def test_what_is_not_there_is_not_started(db: Database, broadcast: Broadcast, engine: RecordingEngine) -> None:
    for unknown in UNKNOWN:
        with pytest.raises(NotFound):
            await runs.start(db, engine, broadcast, [unknown], RunAction.UP)


@pytest.mark.parametrize("count", [0, 101])
async def test_the_number_of_starts_is_limited(
    sqlite_db: Database, broadcast: Broadcast, engine: RecordingEngine, count: int
) -> None:
    with pytest.raises(InvalidInput, match="deployment_ids must have from 1 to 100 ids"):
        await runs.start(sqlite_db, engine, broadcast, [str(uuid4()) for _ in range(count)], RunAction.UP)


async def test_a_run_has_the_turn_that_it_was_given(
    db: Database, broadcast: Broadcast, engine: RecordingEngine
) -> None:
    keys = [str((await factories.deployment(db)).id) for _ in range(3)]
    await runs.start(db, engine, broadcast, keys[:1], RunAction.UP)
    await runs.start(db, engine, broadcast, keys[1:], RunAction.UP, turn=Turn(-100))
    assert [run.priority for run in await _stored(db)] == [0, -100, -100]


async def test_a_run_has_the_name_of_the_token_that_created_it(
    db: Database, broadcast: Broadcast, engine: RecordingEngine
) -> None:
    keys = [str((await factories.deployment(db)).id) for _ in range(2)]
    wanted, key = keys[:1], Key("ci", "runDeployment", "one")
    await runs.start(db, engine, broadcast, wanted, RunAction.UP, created_by="ci", key=key)
    # A request that is sent again changes nothing, whatever the token is called by now.
    await runs.start(db, engine, broadcast, wanted, RunAction.UP, created_by="renamed", key=key)
    await runs.start(db, engine, broadcast, keys[1:], RunAction.UP)
    assert [run.created_by for run in await _stored(db)] == ["ci", "unknown"]


async def _listed(db: Database, **narrowed: Any) -> list[int]:
    """The priorities of the runs in the list, which tell them apart."""
    where = Filter(**narrowed).conditions()
    page = await RUNS.page(db, RUNS.range(Arguments(first=100)), *where)
    assert await RUNS.count(db, *where) == len(page.rows)
    return [run.priority for _, run in page.rows]


async def test_runs_are_filtered_newest_first(db: Database) -> None:
    host = await factories.host(db)
    one, other = await factories.deployment(db, on=host), await factories.deployment(db, on=host)
    first = await factories.run(db, one, RunStatus.FAILED, priority=1, created_by="ci")
    await factories.run(db, other, RunStatus.SUCCESS, priority=2, created_by="ci", action=RunAction.DOWN)
    third = await factories.run(db, one, RunStatus.CANCELED, priority=3, created_by="Ci")
    await factories.run(db, priority=4)
    async with db.write() as session:  # apart from each other, also by a coarse clock
        for run, queued_at in ((first, factories.LONG_AGO), (third, now() + timedelta(hours=1))):
            await session.execute(update(Run).where(Run.id == run.id).values(queued_at=queued_at))
    up, down = frozenset({RunAction.UP}), frozenset({RunAction.DOWN})
    cases: list[tuple[dict[str, Any], list[int]]] = [
        ({}, [4, 3, 2, 1]),
        ({"status_in": frozenset({RunStatus.FAILED, RunStatus.QUEUED})}, [4, 1]),
        ({"status_in": frozenset()}, []),
        ({"reason_in": frozenset({FailureReason.CANCELED, FailureReason.TASK_FAILED})}, [3, 1]),
        ({"reason_in": frozenset({FailureReason.TIMEOUT})}, []),
        ({"action_in": up}, [4, 3, 1]),
        ({"action_in": down}, [2]),
        ({"trigger_in": frozenset({RunTrigger.API})}, [4, 3, 2, 1]),
        ({"trigger_in": frozenset()}, []),
        ({"deployment_id": str(one.id)}, [3, 1]),
        ({"deployment_id": str(one.id).upper(), "action_in": down}, []),
        ({"host_id": str(host.id)}, [3, 2, 1]),
        ({"host_id": str(host.id), "deployment_id": str(other.id)}, [2]),
        ({"created_by": "ci"}, [2, 1]),
        ({"created_by": "c%"}, []),
        ({"queued_before": factories.LONG_AGO}, []),
        ({"queued_before": factories.LONG_AGO + timedelta(seconds=1)}, [1]),
        ({"queued_after": factories.LONG_AGO}, [4, 3, 2]),
        ({"queued_after": now() + timedelta(minutes=30)}, [3]),
        ({"queued_after": factories.LONG_AGO, "queued_before": now() + timedelta(minutes=1)}, [4, 2]),
        *(({name: unknown}, []) for name in ("deployment_id", "host_id", "created_by") for unknown in UNKNOWN),
    ]
    for narrowed, expected in cases:
        assert await _listed(db, **narrowed) == expected, narrowed


async def test_a_token_sees_the_runs_on_its_hosts_whatever_it_filters_by(db: Database) -> None:
    ours, theirs = [await factories.host(db, labels=[label]) for label in ("ours", "theirs")]
    for number, host in enumerate((ours, theirs)):
        deployment = await factories.deployment(db, on=host)
        await factories.run(db, deployment, priority=number, created_by="ci")
    limited = db.limited_to(frozenset({"ours"}))
    assert await _listed(limited) == [0]
    assert await _listed(limited, created_by="ci", status_in=frozenset({RunStatus.QUEUED})) == [0]
    assert await _listed(limited, host_id=str(theirs.id)) == []


PLANS: list[tuple[dict[str, Any], str]] = [
    ({}, "pk_runs|sqlite_autoindex_runs_1"),
    ({"status_in": frozenset({RunStatus.FAILED})}, "ix_runs_status_id"),
    ({"reason_in": frozenset({FailureReason.TIMEOUT})}, "ix_runs_reason_id"),
    ({"created_by": "ci"}, "ix_runs_created_by_id"),
    ({"deployment_id": str(uuid4())}, "ix_runs_deployment_id_id"),
]


@pytest.mark.parametrize(("narrowed", "index"), PLANS)
async def test_a_page_of_runs_is_read_along_an_index_without_sorting(
    db: Database, narrowed: dict[str, Any], index: str
) -> None:
    statement = RUNS._select(RUNS.range(Arguments())).where(*Filter(**narrowed).conditions())
    async with db.read() as session:
        connection = await session.connection()
        compiled = statement.compile(dialect=connection.dialect, compile_kwargs={"literal_binds": True})
        if not db.is_sqlite:  # which prefers to read all of a table that is as small as a test's
            await session.execute(text("SET LOCAL enable_seqscan = off"))
            await session.execute(text("SET LOCAL enable_bitmapscan = off"))
        explain = "EXPLAIN QUERY PLAN" if db.is_sqlite else "EXPLAIN"
        plan = str((await connection.exec_driver_sql(f"{explain} {compiled}".replace("%", "%%"))).all())
    assert re.search(index, plan), plan
    assert not re.search("Sort|TEMP B-TREE", plan), plan


@pytest.mark.parametrize("priority", [-101, 101, 2**31 - 1])
async def test_a_turn_has_its_limits(
    sqlite_db: Database, broadcast: Broadcast, engine: RecordingEngine, priority: int
) -> None:
    key = str((await factories.deployment(sqlite_db)).id)
    with pytest.raises(InvalidInput) as refused:
        await runs.start(sqlite_db, engine, broadcast, [key], RunAction.UP, turn=Turn(priority))
    problems = [(problem.path, problem.code) for problem in refused.value.problems]
    assert problems == [(("priority",), "RANGE")]


async def test_another_turn_is_another_input(
    sqlite_db: Database, broadcast: Broadcast, engine: RecordingEngine
) -> None:
    wanted, key = [str((await factories.deployment(sqlite_db)).id)], Key("ci", "runDeployment", "one")
    await runs.start(sqlite_db, engine, broadcast, wanted, RunAction.UP, key=key)
    with pytest.raises(InvalidInput):
        await runs.start(sqlite_db, engine, broadcast, wanted, RunAction.UP, turn=Turn(1), key=key)


async def test_an_id_is_given_once(sqlite_db: Database, broadcast: Broadcast, engine: RecordingEngine) -> None:
    key = str((await factories.deployment(sqlite_db)).id)
    with pytest.raises(InvalidInput, match="must not have an id twice"):
        await runs.start(sqlite_db, engine, broadcast, [key, key.upper()], RunAction.UP)


async def test_one_of_twenty_requests_starts_a_deployment(
    db: Database, broadcast: Broadcast, engine: RecordingEngine
) -> None:
    key = str((await factories.deployment(db)).id)
    starts = (runs.start(db, engine, broadcast, [key], RunAction.UP) for _ in range(20))
    results = await asyncio.gather(*starts, return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == [*["RunInProgress"] * 19, "list"]
    assert len(await _stored(db)) == 1


async def test_requests_for_the_same_deployments_do_not_wait_for_each_other_for_ever(
    db: Database, broadcast: Broadcast, engine: RecordingEngine
) -> None:
    keys = [str((await factories.deployment(db)).id) for _ in range(5)]
    requests = [keys, keys[::-1], *([key] for key in keys), keys[1:4]]
    results = await asyncio.gather(
        *(runs.start(db, engine, broadcast, request, RunAction.UP) for request in requests), return_exceptions=True
    )
    assert {type(result).__name__ for result in results} == {"RunInProgress", "list"}
    started = [deployment.id for result in results if isinstance(result, list) for deployment, _ in result]
    assert len(started) == len(set(started)) == len(await _stored(db))


async def test_a_queued_run_is_canceled_at_once(db: Database, broadcast: Broadcast, engine: RecordingEngine) -> None:
    queued = await factories.run(db)
    with broadcast.listen(queued.id) as log, broadcast.listen(Everything.DEPLOYMENTS) as all_of_them:
        run = await runs.cancel(db, engine, broadcast, str(queued.id))
        await asyncio.gather(log.wait(5), all_of_them.wait(5))
    assert (run.status, run.reason) == (RunStatus.CANCELED, FailureReason.CANCELED)
    assert run.message == "The run was canceled before it had begun."
    assert (await deployments.get(db, str(run.deployment_id))).status is DeploymentStatus.PENDING
    assert engine.canceled == []


async def test_a_running_run_is_asked_to_end(db: Database, broadcast: Broadcast, engine: RecordingEngine) -> None:
    running = await factories.run(db, to=RunStatus.RUNNING)
    run = await runs.cancel(db, engine, broadcast, str(running.id))
    assert run.status is RunStatus.RUNNING
    assert run.cancel_requested_at is not None
    assert engine.canceled == [running.id]


@pytest.mark.parametrize("ended", ENDED)
async def test_a_run_that_has_ended_stays_as_it_is(
    db: Database, broadcast: Broadcast, engine: RecordingEngine, ended: RunStatus
) -> None:
    before = await factories.run(db, to=ended)
    run = await runs.cancel(db, engine, broadcast, str(before.id))
    assert (run.status, run.message, run.finished_at) == (before.status, before.message, before.finished_at)
    assert run.cancel_requested_at is None


async def test_a_cancel_beside_a_claim_reaches_the_run_either_way(
    db: Database, broadcast: Broadcast, engine: RecordingEngine
) -> None:
    async def claim(run_id: UUID) -> Run | None:
        async with db.write() as session:
            return await status.claim(session, run_id, "worker")

    for _ in range(10):
        queued = await factories.run(db)
        claimed, run = await asyncio.gather(claim(queued.id), runs.cancel(db, engine, broadcast, str(queued.id)))
        assert (run.cancel_requested_at is None) == (claimed is None)
        assert (run.status is RunStatus.CANCELED) == (claimed is None)


async def test_a_run_that_is_not_there_is_not_found(
    db: Database, broadcast: Broadcast, engine: RecordingEngine
) -> None:
    for run_id in UNKNOWN:
        with pytest.raises(NotFound):
            await runs.get(db, run_id)
        with pytest.raises(NotFound):
            await runs.cancel(db, engine, broadcast, run_id)


async def test_many_runs_are_read_by_their_ids(db: Database) -> None:
    one, two = await factories.run(db), await factories.run(db)
    assert set(await runs.get_many(db, [one.id, two.id, uuid4()])) == {one.id, two.id}


async def test_the_latest_run_of_each_deployment(db: Database) -> None:
    one, two, none = [await factories.deployment(db) for _ in range(3)]
    for _ in range(3):
        last = await factories.run(db, one, RunStatus.FAILED)
    other = await factories.run(db, two)
    latest = await runs.latest_of(db, [one.id, two.id, none.id])
    assert {key: (run.id, run.number) for key, run in latest.items()} == {one.id: (last.id, 3), two.id: (other.id, 1)}
