"""Many at once."""

import asyncio

from tests.conftest import MakeSshd
from tests.e2e.conftest import Connect, NewProject
from tests.support.client import ONCE, SLEEPER, UNDECIDED, Client, Refused
from tests.support.server import Server, at_work


async def test_one_of_twenty_clients_that_run_a_deployment_at_once_is_accepted(
    server: Server, client: Client, connect: Connect, project: str
) -> None:
    deployment = await client.deployment(await client.local_host(), await client.package({"once": ONCE}), project)
    clients = [connect(server) for _ in range(20)]
    answers = await asyncio.gather(*(each.start(deployment) for each in clients), return_exceptions=True)
    [run_id] = [answer for answer in answers if isinstance(answer, str)]
    refused = [answer for answer in answers if isinstance(answer, Refused)]
    assert len(refused) == 19
    extensions = {"code": "RUN_ALREADY_IN_PROGRESS", "status": 400, "runId": run_id}
    assert [each.error["extensions"] for each in refused] == [extensions] * 19
    assert (await client.end_of(run_id))["status"] == "SUCCESS"
    document = "query($id: ID!) { deployment(id: $id) { runs { totalCount } } }"
    assert (await client.ask(document, id=deployment))["deployment"]["runs"]["totalCount"] == 1


async def test_of_many_deployments_all_are_run_or_none(client: Client, new_project: NewProject) -> None:
    host = await client.local_host()
    busy = await client.deployment(host, await client.package({"web": UNDECIDED}), new_project())
    once = await client.package({"once": ONCE})
    ids = [await client.deployment(host, once, new_project()) for _ in range(2)]
    running = await client.start(busy)
    for refused, code in (
        ([*ids, busy], "RUN_ALREADY_IN_PROGRESS"),
        ([*ids, "01890000-0000-7000-8000-000000000000"], "NOT_FOUND"),
        ([ids[0], ids[0]], "BAD_USER_INPUT"),
    ):
        assert await _refusal(client, refused) == code
    assert [await client.status(each) for each in ids] == ["PENDING", "PENDING"]
    await client.cancel(running)

    payload = await client.change("runDeployments", "runs { id status deployment { id status } }", deploymentIds=ids)
    assert [run["deployment"]["id"] for run in payload["runs"]] == ids
    assert {run["deployment"]["status"] for run in payload["runs"]} == {"RUNNING"}
    ended = await asyncio.gather(*(client.end_of(run["id"]) for run in payload["runs"]))
    assert {run["status"] for run in ended} == {"SUCCESS"}
    await client.end_of(running)


async def _refusal(client: Client, deployment_ids: list[str]) -> str | None:
    """The code with which the server refuses to run these; None where it does not."""
    try:
        await client.change("runDeployments", "runs { id }", deploymentIds=deployment_ids)
    except Refused as refused:
        return refused.code
    return None


async def test_thirty_deployments_to_three_hosts_at_once_succeed(
    server: Server, client: Client, make_sshd: MakeSshd, new_project: NewProject
) -> None:
    hosts = [await client.ssh_host(make_sshd()) for _ in range(3)]
    package = await client.package({"web": SLEEPER})
    names = [new_project() for _ in range(30)]
    ids = [await client.deployment(hosts[number % 3], package, name) for number, name in enumerate(names)]
    payload = await client.change("runDeployments", "runs { id }", deploymentIds=ids)
    ended = await asyncio.gather(*(client.end_of(run["id"], 400) for run in payload["runs"]))
    assert [run["message"] for run in ended if run["status"] != "SUCCESS"] == []
    assert {await client.status(each) for each in ids} == {"SUCCESS"}
    assert server.processes() == {}
    assert [at_work(name) for name in names] == [{}] * 30
