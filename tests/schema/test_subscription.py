"""Every subscription of the contract."""

import asyncio
import json

import pytest
from sqlalchemy import text

from db import run_phases, status
from db.broadcast import Everything
from db.models import Deployment, Role, RunStatus
from db.phase import Phase
from db.run_phases import PhaseChange
from resolvers import deployments
from resolvers.deployment_changes import CHANGES
from resolvers.hosts import HOSTS
from resolvers.runs import LOG
from resolvers.tokens import Principal
from schema.subscription import built
from tests import factories
from tests.support.api import Api, rest, take
from tests.support.attacks import UNKNOWN

STATUS = """subscription ($id: ID!, $after: String) { deploymentStatus(id: $id, after: $after) {
    status at cursor run { number status } deploymentId deployment { id status latestRun { number status } }
} }"""
CHANGED = """subscription ($after: String) { deploymentsChanged(after: $after) {
    status at cursor run { number } deployment { id projectName host { name } }
} }"""
LOG_OF_RUN = """subscription ($runId: ID!, $after: String) { runLog(runId: $runId, after: $after) {
    entries { sequence at level phase message } endCursor complete
} }"""


RUN_CHANGED = """subscription ($id: ID!, $after: String) { runChanged(id: $id, after: $after) {
    at cursor run { id status phases { phase outcome } deployment { status } }
} }"""


async def _finish(api: Api, deployment: Deployment, to: RunStatus = RunStatus.SUCCESS) -> None:
    await factories.run(api.db, deployment, to)
    api.context.broadcast.notify(deployment.id, Everything.DEPLOYMENTS)


async def test_the_status_of_a_deployment_is_followed(api: Api) -> None:
    deployment = await factories.deployment(api.db)
    async with api.subscribe(STATUS, id=str(deployment.id)) as events:
        [now] = await take(events)
        assert (now["status"], now["run"]) == ("PENDING", None)
        assert now["deployment"] == {"id": str(deployment.id), "status": "PENDING", "latestRun": None}
        await _finish(api, deployment)
        await _finish(api, deployment, RunStatus.FAILED)
        seen = await take(events, 4)
    assert [(event["status"], event["run"]["number"]) for event in seen] == [
        ("RUNNING", 1), ("SUCCESS", 1), ("RUNNING", 2), ("FAILED", 2),
    ]  # fmt: skip
    assert {event["deploymentId"] for event in (now, *seen)} == {str(deployment.id)}
    assert seen[-1]["deployment"]["latestRun"] == {"number": 2, "status": "FAILED"}


def test_what_cannot_be_built_is_skipped_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    assert list(built(lambda number: 1 // number, [1, 0, 1])) == [1, 1]
    [record] = caplog.records
    assert record.message == "int cannot be converted for its subscribers and is skipped"


async def test_runs_that_cannot_be_read_end_nobodys_stream(api: Api) -> None:
    deployment = await factories.deployment(api.db)
    async with api.subscribe(CHANGED, after=CHANGES.cursor([0])) as events:
        await _finish(api, deployment, RunStatus.FAILED)
        await take(events, 3)
        async with api.db.write() as session:
            given = {
                "containers": json.dumps([{"name": "web"}, 5]),
                "warnings": json.dumps({"a": 1}),
                "reason": "BORED",
            }
            await session.execute(
                text("UPDATE runs SET containers = :containers, warnings = :warnings, reason = :reason"), given
            )
        await _finish(api, deployment)
        assert [event["status"] for event in await take(events, 2)] == ["RUNNING", "SUCCESS"]
    answer = await api.ask("{ deployments { nodes { runs { nodes { reason warnings containers { name } } } } } }")
    [shown] = answer["deployments"]["nodes"]
    assert {"reason": "TASK_FAILED", "warnings": [], "containers": []} in shown["runs"]["nodes"]


async def test_each_event_shows_the_state_of_its_own_time(api: Api) -> None:
    deployment = await factories.deployment(api.db)
    async with api.subscribe(STATUS, id=str(deployment.id)) as events:
        await take(events)
        for number in (1, 2, 3):
            run = await factories.run(api.db, deployment, RunStatus.RUNNING)
            api.context.broadcast.notify(deployment.id)
            [began] = await take(events)
            assert began["deployment"]["latestRun"] == {"number": number, "status": "RUNNING"}
            async with api.db.write() as session:
                await status.finish(session, run.id, run.epoch, factories.end())
            api.context.broadcast.notify(deployment.id)
            [ended] = await take(events)
            assert ended["run"] == {"number": number, "status": "SUCCESS"}
            assert ended["deployment"]["latestRun"] == {"number": number, "status": "SUCCESS"}


async def test_a_subscription_goes_on_behind_a_cursor(api: Api) -> None:
    deployment = await factories.deployment(api.db)
    async with api.subscribe(STATUS, id=str(deployment.id)) as events:
        [now] = await take(events)
    await _finish(api, deployment)
    async with api.subscribe(STATUS, id=str(deployment.id), after=now["cursor"]) as events:
        assert [event["status"] for event in await take(events, 2)] == ["RUNNING", "SUCCESS"]
    async with api.subscribe(CHANGED, after=now["cursor"]) as events:
        assert [event["status"] for event in await take(events, 2)] == ["RUNNING", "SUCCESS"]


async def test_a_subscription_ends_with_its_deployment(api: Api) -> None:
    deployment = await factories.deployment(api.db)
    async with api.subscribe(STATUS, id=str(deployment.id)) as events:
        await take(events)
        ending = asyncio.create_task(rest(events))
        await deployments.remove(api.db, api.context.broadcast, str(deployment.id))
        assert await ending == []


async def test_a_slow_subscriber_of_a_deleted_deployment_comes_to_the_end(api: Api) -> None:
    # A change tells what was read with it; what is asked of its run beyond that may be gone when the event is sent.
    deployment = await factories.deployment(api.db)
    await _finish(api, deployment)
    asked = "status run { status log(first: 1) { totalCount } }"
    document = f"subscription ($id: ID!, $after: String) {{ deploymentStatus(id: $id, after: $after) {{ {asked} }} }}"
    async with api.subscribe(document, id=str(deployment.id), after=CHANGES.cursor([0])) as events:
        assert await take(events) == [{"status": "PENDING", "run": None}]
        await deployments.remove(api.db, api.context.broadcast, str(deployment.id))
        run = {"status": "SUCCESS", "log": {"totalCount": 0}}
        assert await rest(events) == [{"status": "RUNNING", "run": run}, {"status": "SUCCESS", "run": run}]


async def test_an_event_of_a_deleted_deployment_has_its_id_and_no_deployment(api: Api) -> None:
    deployment = await factories.deployment(api.db)
    await _finish(api, deployment)
    asked = "status deploymentId deployment { host { name } }"
    document = f"subscription ($after: String) {{ deploymentsChanged(after: $after) {{ {asked} }} }}"
    async with api.subscribe(document, after=CHANGES.cursor([0])) as events:
        [first] = await take(events)
        assert (first["status"], first["deployment"] is None) == ("PENDING", False)
        await deployments.remove(api.db, api.context.broadcast, str(deployment.id))
        gone = {"deploymentId": str(deployment.id), "deployment": None}
        # Both were read together with the first one.
        assert await take(events, 2) == [{"status": "RUNNING", **gone}, {"status": "SUCCESS", **gone}]
        assert await take(events) == [{"status": "SUCCESS", **gone}]  # the deletion


async def test_a_deletion_is_told_to_a_limited_token_that_saw_the_deployment_and_to_no_other(api: Api) -> None:
    host = await factories.host(api.db, labels=["ours"])
    ours, theirs = await factories.deployment(api.db, on=host), await factories.deployment(api.db)
    for deployment in (theirs, ours):
        await deployments.remove(api.db, api.context.broadcast, str(deployment.id))
    api.context.identify(Principal("me", Role.VIEWER, frozenset({"ours"})))
    document = "subscription ($after: String) { deploymentsChanged(after: $after) { deploymentId run { id } } }"
    async with api.subscribe(document, after=CHANGES.cursor([0])) as events:
        assert await take(events) == [{"deploymentId": str(ours.id), "run": None}]


async def test_every_change_of_any_deployment_is_followed(api: Api) -> None:
    one, two = await factories.deployment(api.db), await factories.deployment(api.db)
    async with api.subscribe(CHANGED, after=CHANGES.cursor([0])) as events:
        assert [event["deployment"]["id"] for event in (await take(events, 2))] == [str(one.id), str(two.id)]
        coming = asyncio.create_task(take(events, 3))
        await _finish(api, two)
        new = await factories.deployment(api.db)
        api.context.broadcast.notify(Everything.DEPLOYMENTS)
        assert [(event["deployment"]["id"], event["status"]) for event in await coming] == [
            (str(two.id), "RUNNING"), (str(two.id), "SUCCESS"), (str(new.id), "PENDING"),
        ]  # fmt: skip


async def test_changes_that_a_filter_matches_are_followed(api: Api) -> None:
    one, two = await factories.deployment(api.db), await factories.deployment(api.db)
    document = """subscription ($after: String, $filter: DeploymentFilter) {
        deploymentsChanged(after: $after, filter: $filter) { deploymentId status }
    }"""
    narrowed = {"hostId": str(two.host_id), "statusIn": ["SUCCESS"]}
    async with api.subscribe(document, after=CHANGES.cursor([0]), filter=narrowed) as events:
        await _finish(api, one)
        await _finish(api, two)
        assert await take(events) == [{"deploymentId": str(two.id), "status": "SUCCESS"}]
    error = await api.subscription_error(document, filter={"hostLabelsAny": [str(number) for number in range(101)]})
    assert error["extensions"]["code"] == "BAD_USER_INPUT"


async def test_the_log_of_a_run_is_followed_to_its_end(api: Api) -> None:
    run = await factories.run(api.db, to=RunStatus.RUNNING)
    await factories.log(api.db, run, 2)
    async with api.subscribe(LOG_OF_RUN, runId=str(run.id)) as events:
        [first] = await take(events)
        assert [entry["message"] for entry in first["entries"]] == ["line 1", "line 2"]
        assert first["entries"][0]["at"] == "2026-01-31T12:00:01.000Z"
        assert first["complete"] is False
        ending = asyncio.create_task(rest(events))
        await factories.log(api.db, run, 150, first=3)
        async with api.db.write() as session:
            await status.finish(session, run.id, run.epoch, factories.end())
        api.context.broadcast.notify(run.id)
        more = await ending
    assert [entry["sequence"] for event in more for entry in event["entries"]] == list(range(3, 153))
    assert [event["complete"] for event in more] == [False] * (len(more) - 1) + [True]
    async with api.subscribe(LOG_OF_RUN, runId=str(run.id), after=more[0]["endCursor"]) as events:
        [last] = await rest(events)
    assert [entry["sequence"] for entry in last["entries"]] == list(range(103, 153))


async def test_a_run_is_followed_to_its_end(api: Api) -> None:
    run = await factories.run(api.db, to=RunStatus.RUNNING)
    async with api.subscribe(RUN_CHANGED, id=str(run.id)) as events:
        [now] = await take(events)
        assert now["run"] == {"id": str(run.id), "status": "RUNNING", "phases": [], "deployment": {"status": "RUNNING"}}
        coming = asyncio.create_task(take(events))
        changes = [PhaseChange(Phase.PREPARE, factories.LONG_AGO)]
        async with api.db.write() as session:
            await status.advance(session, run.id, run.epoch, 0.5)
            await run_phases.record(session, run.id, run.action, changes)
        api.context.broadcast.notify(run.id)
        [began] = await coming
        assert began["at"] == "2026-01-31T12:00:00.000Z"
        assert began["run"]["phases"] == [{"phase": "PREPARE", "outcome": None}]
        ending = asyncio.create_task(rest(events))
        async with api.db.write() as session:
            await status.finish(session, run.id, run.epoch, factories.end())
        api.context.broadcast.notify(run.id)
        [ended] = await ending
    assert (ended["run"]["status"], ended["run"]["deployment"]["status"]) == ("SUCCESS", "SUCCESS")
    assert ended["run"]["phases"][0] == {"phase": "PREPARE", "outcome": "OK"}
    async with api.subscribe(RUN_CHANGED, id=str(run.id), after=now["cursor"]) as events:
        assert [event["cursor"] for event in await rest(events)] == [began["cursor"], ended["cursor"]]


async def test_an_empty_log_has_no_cursor(api: Api) -> None:
    run = await factories.run(api.db, to=RunStatus.FAILED)
    async with api.subscribe(LOG_OF_RUN, runId=str(run.id)) as events:
        assert await rest(events) == [{"entries": [], "endCursor": None, "complete": True}]


@pytest.mark.parametrize(
    ("document", "name", "kind"),
    [(STATUS, "id", "Deployment"), (LOG_OF_RUN, "runId", "Run"), (RUN_CHANGED, "id", "Run")],
    ids=["status", "log", "run"],
)
async def test_what_is_not_there_is_not_found(api: Api, document: str, name: str, kind: str) -> None:
    for unknown in UNKNOWN:
        error = await api.subscription_error(document, **{name: unknown})
        assert error["message"].startswith(f"{kind} '{unknown}' was not found; the ")
        assert error["extensions"] == {"code": "NOT_FOUND", "status": 404}


async def test_a_cursor_of_something_else_is_refused(api: Api) -> None:
    run = await factories.run(api.db)
    for document, given in (
        (STATUS, {"id": str(run.deployment_id), "after": LOG.cursor([1])}),
        (CHANGED, {"after": HOSTS.cursor(["x"])}),
        (LOG_OF_RUN, {"runId": str(run.id), "after": CHANGES.cursor([1])}),
        (RUN_CHANGED, {"id": str(run.id), "after": LOG.cursor([1])}),
    ):
        error = await api.subscription_error(document, **given)
        assert error["message"] == "after is not a cursor of this list."
        assert error["extensions"]["problems"][0]["path"] == ["after"]


async def test_nobody_listens_after_unsubscribing(api: Api) -> None:
    run = await factories.run(api.db)
    await factories.log(api.db, run, 1)
    for document, given in (
        (STATUS, {"id": str(run.deployment_id)}),
        (CHANGED, {"after": CHANGES.cursor([0])}),
        (LOG_OF_RUN, {"runId": str(run.id)}),
        (RUN_CHANGED, {"id": str(run.id)}),
    ):
        async with api.subscribe(document, **given) as events:
            await take(events)
        assert vars(api.context.broadcast)["_listeners"] == {}
