"""Subscriptions over a websocket: the state now, then every change, in order, none missing, none twice."""

import asyncio
import json
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect as open_websocket
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from db.phase import Phase
from tests.e2e.conftest import Connect, MakeServer, NewProject
from tests.support.client import NEVER_UP, ONCE, PATIENCE, UNDECIDED, Client, Json, Refused, service
from tests.support.sshd import SshServer

STATUS = """subscription($id: ID!, $after: String) { deploymentStatus(id: $id, after: $after) {
    status at cursor run { id number } deployment { id status } } }"""
CHANGES = "subscription { deploymentsChanged { status at run { number } deploymentId } }"
LOG = """subscription($id: ID!, $after: String) { runLog(runId: $id, after: $after) {
    entries { sequence level message } endCursor complete } }"""
TALKATIVE = {"web": service("sh", "-c", "for i in 1 2 3 4 5 6 7 8 9 10; do echo line $$i; done; exit 3")}


@pytest.fixture
async def failing(client: Client, sshd: SshServer, project: str) -> str:
    """A deployment whose runs fail at once, for want of a key."""
    host = await client.ssh_host(sshd, sshKeyPath="/nowhere/key")
    return await client.deployment(host, await client.package({"once": ONCE}), project)


async def test_a_deployments_status_is_followed_to_its_deletion(client: Client, project: str) -> None:
    package = await client.package({"once": ONCE})
    deployment = await client.deployment(await client.local_host(), package, project)
    async with client.subscribe(STATUS, id=deployment) as events:
        seen = [(await anext(events))["deploymentStatus"]]
        run_id = await client.start(deployment)
        seen += [(await anext(events))["deploymentStatus"] for _ in range(2)]
        await client.change("deleteDeployment", "deletedDeploymentId", deploymentId=deployment)
        assert [event async for event in events] == []
    assert [event["status"] for event in seen] == ["PENDING", "RUNNING", "SUCCESS"]
    assert [event["run"] for event in seen] == [None, *[{"id": run_id, "number": 1}] * 2]
    assert [event["at"] for event in seen] == sorted(event["at"] for event in seen)


async def test_a_late_subscriber_gets_the_state_now(client: Client, failing: str) -> None:
    await client.play(failing)
    await client.play(failing)
    async with client.subscribe(STATUS, id=failing) as events:
        event = (await anext(events))["deploymentStatus"]
        assert (event["status"], event["run"]["number"]) == ("FAILED", 2)


async def test_a_reader_of_one_event_a_second_misses_none(client: Client, failing: str) -> None:
    async with client.subscribe(STATUS, id=failing) as events:
        seen = [(await anext(events))["deploymentStatus"]]
        for _ in range(3):
            await client.play(failing)  # nobody waits for the reader
        while len(seen) < 7:
            await asyncio.sleep(1)  # it is the slowness that is tested
            seen.append((await anext(events))["deploymentStatus"])
    numbers = [(event["run"]["number"], event["status"]) for event in seen[1:]]
    assert numbers == [(number, status) for number in (1, 2, 3) for status in ("RUNNING", "FAILED")]


async def test_every_change_of_any_deployment_is_seen_in_order(
    client: Client, sshd: SshServer, new_project: NewProject
) -> None:
    host = await client.ssh_host(sshd, sshKeyPath="/nowhere/key")
    package = await client.package({"once": ONCE})
    async with client.subscribe(CHANGES) as events:
        first = asyncio.ensure_future(anext(events))
        while not first.done():  # what happens before the subscription has begun is none of its business
            last = await client.deployment(host, package, new_project())
        seen = [(await first)["deploymentsChanged"]]
        while seen[-1]["deploymentId"] != last:
            seen.append((await anext(events))["deploymentsChanged"])
        ids = [await client.deployment(host, package, new_project()) for _ in range(4)]
        await client.change("runDeployments", "runs { id }", deploymentIds=ids)
        seen += [(await anext(events))["deploymentsChanged"] for _ in range(12)]
    for deployment in ids:
        own = [event["status"] for event in seen if event["deploymentId"] == deployment]
        assert own == ["PENDING", "RUNNING", "FAILED"]
    assert [event["at"] for event in seen] == sorted(event["at"] for event in seen)


async def test_a_runs_log_is_followed_to_its_end(client: Client, host: str, project: str) -> None:
    deployment = await client.deployment(host, await client.package(TALKATIVE), project)
    run_id = await client.start(deployment)
    async with client.subscribe(LOG, id=run_id) as events:
        seen = [event["runLog"] async for event in events]
    assert [event["complete"] for event in seen] == [False] * (len(seen) - 1) + [True]
    assert len(seen) > 2  # live, and not all at the end
    entries = [entry for event in seen for entry in event["entries"]]
    assert [(each["sequence"], each["message"]) for each in entries] == [
        (each["sequence"], each["message"]) for each in await client.log(run_id)
    ]
    assert [each["sequence"] for each in entries] == list(range(1, len(entries) + 1))


async def test_a_slow_reader_of_a_log_misses_nothing(client: Client, project: str) -> None:
    deployment = await client.deployment(await client.local_host(), await client.package(TALKATIVE), project)
    run_id = await client.start(deployment)
    entries: list[Json] = []
    async with client.subscribe(LOG, id=run_id) as events:
        async for event in events:
            entries += event["runLog"]["entries"]
            await asyncio.sleep(0.5)  # it is the slowness that is tested
    assert [each["sequence"] for each in entries] == [each["sequence"] for each in await client.log(run_id)]


async def test_a_log_goes_on_behind_its_cursor_after_a_restart(
    make_server: MakeServer, connect: Connect, project: str
) -> None:
    server = make_server()
    client = connect(server)
    deployment = await client.deployment(await client.local_host(), await client.package(TALKATIVE), project)
    run_id = await client.start(deployment)
    entries: list[Json] = []
    async with client.subscribe(LOG, id=run_id) as events:
        event = (await anext(events))["runLog"]
    entries += event["entries"]
    server.kill()
    server.start()
    async with client.subscribe(LOG, id=run_id, after=event["endCursor"]) as events:
        rest = [event["runLog"] async for event in events]
    entries += [entry for event in rest for entry in event["entries"]]
    assert rest[-1]["complete"]
    assert [each["sequence"] for each in entries] == [each["sequence"] for each in await client.log(run_id)]


async def test_changes_go_on_behind_their_cursor_after_a_restart(
    make_server: MakeServer, connect: Connect, sshd: SshServer, project: str
) -> None:
    server = make_server()
    client = connect(server)
    host = await client.ssh_host(sshd, sshKeyPath="/nowhere/key")
    deployment = await client.deployment(host, await client.package({"once": ONCE}), project)
    async with client.subscribe(STATUS, id=deployment) as events:
        first = (await anext(events))["deploymentStatus"]
    await client.play(deployment)
    server.kill()
    server.start()
    await client.play(deployment)
    async with client.subscribe(STATUS, id=deployment, after=first["cursor"]) as events:
        seen = [(await anext(events))["deploymentStatus"]["status"] for _ in range(4)]
    assert seen == ["RUNNING", "FAILED"] * 2


async def test_a_hanging_reader_delays_nobody(client: Client, failing: str) -> None:
    async with client.subscribe(STATUS, id=failing) as hanging, client.subscribe(STATUS, id=failing) as events:
        await anext(hanging)
        await anext(events)
        async with asyncio.timeout(60):
            for _ in range(5):
                await client.play(failing)
                assert [(await anext(events))["deploymentStatus"]["status"] for _ in range(2)] == ["RUNNING", "FAILED"]


@pytest.mark.parametrize("document", [STATUS, LOG])
async def test_a_subscription_to_nothing_is_not_found(client: Client, document: str) -> None:
    async with client.subscribe(document, id="01890000-0000-7000-8000-000000000000") as events:
        with pytest.raises(Refused) as refused:
            await anext(events)
    assert refused.value.code == "NOT_FOUND"
    assert refused.value.error["extensions"]["status"] == 404


@pytest.mark.parametrize("name", ["authorization", "Authorization", "AUTHORIZATION"])
async def test_a_token_is_taken_from_the_payload_in_any_letter_case(client: Client, name: str) -> None:
    async with client.connected({name: f"Bearer {client.server.token}"}):
        pass


@pytest.mark.parametrize("payload", [{}, {"authorization": "Bearer wrong"}])
async def test_a_websocket_without_a_token_is_closed(client: Client, payload: Any) -> None:
    with pytest.raises(ConnectionClosed) as closed:
        async with client.connected(payload):
            pass
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code in {4401, 4403}


async def test_the_legacy_protocol_is_off(client: Client) -> None:
    url = f"{client.server.url.replace('http', 'ws', 1)}/graphql"
    async with open_websocket(url, subprotocols=[Subprotocol("graphql-ws")]) as socket:
        with pytest.raises(ConnectionClosed):
            await socket.recv()


async def test_a_status_is_followed_by_server_sent_events(client: Client, failing: str) -> None:
    headers = {"Authorization": f"Bearer {client.server.token}", "Accept": "text/event-stream"}
    body = {"query": STATUS, "variables": {"id": failing}}
    seen: list[str] = []
    async with (
        httpx.AsyncClient(timeout=20) as http,
        http.stream("POST", f"{client.server.url}/graphql", json=body, headers=headers) as answer,
    ):
        assert answer.headers["content-type"].startswith("text/event-stream")
        async for line in answer.aiter_lines():
            if not line.startswith("data:"):
                continue
            seen.append(json.loads(line.removeprefix("data:"))["data"]["deploymentStatus"]["status"])
            if len(seen) == 1:
                await client.start(failing)
            if len(seen) == 3:
                break
    assert seen == ["PENDING", "RUNNING", "FAILED"]


LASTING = {
    Phase.PULL: ({"web": service("true", image="REGISTRY/slow:1")}, "web Pulling"),
    Phase.UP: (NEVER_UP, "-slow-1  Started"),
    Phase.VERIFY: ({"web": UNDECIDED}, "Waiting for web (starting)"),
}


async def _come_while_it_lasts(client: Client, host: str, project: str, registry: str, phase: Phase) -> None:
    services, words = LASTING[phase]
    compose_file = json.dumps({"services": services}).replace("REGISTRY", registry)
    run_id = await client.start(await client.deployment(host, await client.package(compose_file), project))
    async with client.subscribe(LOG, id=run_id) as events, asyncio.timeout(PATIENCE):
        async for event in events:
            assert not event["runLog"]["complete"], "the run ended before anything was told of it"
            if any(words in entry["message"] for entry in event["runLog"]["entries"]):
                break
    await client.cancel(run_id)
    await client.end_of(run_id)


@pytest.mark.parametrize("phase", LASTING)
async def test_words_of_a_phase_come_while_it_lasts(
    client: Client, host: str, project: str, registry: str, phase: Phase
) -> None:
    await _come_while_it_lasts(client, host, project, registry, phase)


async def test_words_of_a_phase_come_while_it_lasts_also_where_ansible_is_started_anew(
    make_server: MakeServer, connect: Connect, project: str, registry: str
) -> None:
    client = connect(make_server(warm="false"))
    await _come_while_it_lasts(client, await client.local_host(), project, registry, Phase.VERIFY)
