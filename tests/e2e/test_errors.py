"""The error table of the contract, over real HTTP."""

import secrets
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from tests.e2e.conftest import Connect, MakeServer
from tests.support.client import ONCE, UNDECIDED, Client, Refused
from tests.support.database import connected

NOBODY = "01890000-0000-7000-8000-000000000000"
COMPOSE = '{"services": {"web": {"image": "demo:1"}}}'


@pytest.fixture
async def http(client: Client) -> AsyncIterator[httpx.AsyncClient]:
    """Requests to the server without a token."""
    async with httpx.AsyncClient(base_url=client.server.url, timeout=20) as http:
        yield http


async def refuse(client: Client, field: str, code: str, status: int, **values: object) -> dict[str, Any]:
    """Call the mutation, and see that it is refused with `code` and `status`; gives the extensions."""
    kind = field[0].upper() + field[1:]
    document = f"mutation($input: {kind}Input!) {{ {field}(input: $input) {{ __typename }} }}"
    answer = await client.post(document, {"input": values})
    assert answer.status_code == 200
    body = answer.json()
    assert body["data"] == {field: None}
    [error] = body["errors"]
    assert error["path"] == [field]
    assert error["message"]
    extensions: dict[str, Any] = error["extensions"]
    assert (extensions["code"], extensions["status"]) == (code, status)
    return extensions


@pytest.fixture
async def idle(client: Client) -> dict[str, str]:
    """The ids of a deployment that was never run, of its host and of its package, and its project's name."""
    host = await client.local_host()
    package = await client.package({"once": ONCE})
    project = f"daos-e2e-{secrets.token_hex(4)}"
    return {
        "host": host,
        "package": package,
        "project": project,
        "deployment": await client.deployment(host, package, project),
    }


async def test_a_deployment_needs_a_host_and_a_package(client: Client, idle: dict[str, str]) -> None:
    for nobody in (NOBODY, "no id"):
        await refuse(client, "createDeployment", "HOST_NOT_FOUND", 400, hostId=nobody, packageId=idle["package"])
        await refuse(client, "createDeployment", "PACKAGE_NOT_FOUND", 400, hostId=idle["host"], packageId=nobody)


@pytest.mark.parametrize("nobody", [NOBODY, "no id", "", "é" * 300])
async def test_what_is_not_there_is_not_found(client: Client, nobody: str) -> None:
    for field, argument in (
        ("deleteDeployment", "deploymentId"),
        ("runDeployment", "deploymentId"),
        ("deleteHost", "hostId"),
        ("updateHost", "hostId"),
        ("deletePackage", "packageId"),
        ("cancelRun", "runId"),
    ):
        await refuse(client, field, "NOT_FOUND", 404, **{argument: nobody})
    await refuse(client, "runDeployments", "NOT_FOUND", 404, deploymentIds=[nobody])
    for field in ("deployment", "host", "package", "run"):
        with pytest.raises(Refused) as refused:
            await client.ask(f"query($id: ID!) {{ {field}(id: $id) {{ id }} }}", id=nobody)
        assert (refused.value.code, refused.value.error["extensions"]["status"]) == ("NOT_FOUND", 404)
    assert await client.ask("query($id: ID!) { node(id: $id) { id } }", id=nobody) == {"node": None}


async def test_a_running_deployment_is_neither_run_nor_deleted(
    client: Client, project: str, idle: dict[str, str]
) -> None:
    package = await client.package({"web": UNDECIDED})
    deployment = await client.deployment(idle["host"], package, project)
    run_id = await client.start(deployment)
    for field in ("runDeployment", "deleteDeployment"):
        extensions = await refuse(client, field, "RUN_ALREADY_IN_PROGRESS", 400, deploymentId=deployment)
        assert extensions["runId"] == run_id
    await client.cancel(run_id)
    await client.end_of(run_id)
    payload = await client.change("deleteDeployment", "deletedDeploymentId", deploymentId=deployment)
    assert payload == {"deletedDeploymentId": deployment}
    await refuse(client, "deleteDeployment", "NOT_FOUND", 404, deploymentId=deployment)
    with pytest.raises(Refused):
        await client.run(run_id)


async def test_what_deployments_name_is_not_deleted(client: Client, idle: dict[str, str]) -> None:
    await refuse(client, "deleteHost", "IN_USE", 400, hostId=idle["host"])
    await refuse(client, "deletePackage", "IN_USE", 400, packageId=idle["package"])
    await client.change("deleteDeployment", "deletedDeploymentId", deploymentId=idle["deployment"])
    assert await client.change("deleteHost", "deletedHostId", hostId=idle["host"]) == {"deletedHostId": idle["host"]}
    await client.change("deletePackage", "deletedPackageId", packageId=idle["package"])


async def test_a_name_is_taken_once(client: Client, idle: dict[str, str]) -> None:
    name = f"e2e {secrets.token_hex(4)}"
    await client.change("createHost", "host { id }", name=name, transport="LOCAL")
    await refuse(client, "createHost", "NAME_TAKEN", 400, name=name, transport="LOCAL")
    package = {"name": name, "version": "1", "composeFile": COMPOSE}
    await client.change("createPackage", "package { id }", **package)
    await refuse(client, "createPackage", "NAME_TAKEN", 400, **package)
    same = {"hostId": idle["host"], "packageId": idle["package"], "projectName": idle["project"]}
    await refuse(client, "createDeployment", "NAME_TAKEN", 400, **same)
    await refuse(client, "updateHost", "NAME_TAKEN", 400, hostId=idle["host"], name=name)


async def test_all_problems_of_an_input_are_told_at_once(client: Client) -> None:
    values = {"name": "", "address": "no host", "port": 0, "user": "-oProxyCommand=id", "sshKeyPath": "key"}
    extensions = await refuse(client, "createHost", "BAD_USER_INPUT", 400, **values)
    assert {tuple(problem["path"]) for problem in extensions["problems"]} == {("input", name) for name in values}
    assert all(problem["code"] and problem["message"] for problem in extensions["problems"])


@pytest.mark.parametrize(
    "compose", ["", "services", "- a", "a: [", "services: {}", "x: 1", "services: {}\n---\na: 1", "\0"]
)
async def test_a_compose_file_that_is_none(client: Client, compose: str) -> None:
    values = {"name": "x", "version": "1", "composeFile": compose}
    extensions = await refuse(client, "createPackage", "BAD_USER_INPUT", 400, **values)
    assert [problem["path"] for problem in extensions["problems"]] == [["input", "composeFile"]]


@pytest.mark.parametrize(
    "path", ["../x", "/etc/passwd", "a/../../b", ".env", "compose.yaml", "", "a//b", "./a", "a\nb", "a/"]
)
async def test_a_file_that_leads_out_of_the_project(client: Client, path: str) -> None:
    values = {"name": "x", "version": "1", "composeFile": COMPOSE, "files": [{"path": path, "content": ""}]}
    await refuse(client, "createPackage", "BAD_USER_INPUT", 400, **values)


@pytest.mark.parametrize("size", [1024 * 1024 + 1, 3 * 1024 * 1024])
async def test_a_compose_file_that_is_too_big(client: Client, size: int) -> None:
    values = {"name": "x", "version": "1", "composeFile": COMPOSE + " " * size}
    await refuse(client, "createPackage", "BAD_USER_INPUT", 400, **values)


async def test_files_that_are_too_big_together(client: Client) -> None:
    files = [{"path": str(number), "content": "x" * 1024 * 1024} for number in range(5)]
    values = {"name": "x", "version": "1", "composeFile": COMPOSE, "files": files}
    await refuse(client, "createPackage", "BAD_USER_INPUT", 400, **values)


@pytest.mark.parametrize("name", ["", "1A", "A-B", "A B", "A=B", "COMPOSE_FILE", "DOCKER_HOST", "é"])
async def test_a_variable_that_is_none(client: Client, idle: dict[str, str], name: str) -> None:
    values = {"hostId": idle["host"], "packageId": idle["package"], "variables": [{"name": name, "value": ""}]}
    await refuse(client, "createDeployment", "BAD_USER_INPUT", 400, **values)


@pytest.mark.parametrize("first", [-1, 101])
async def test_a_page_that_cannot_be(client: Client, first: int) -> None:
    with pytest.raises(Refused) as refused:
        await client.ask("query($first: Int) { deployments(first: $first) { totalCount nodes { id } } }", first=first)
    assert refused.value.code == "BAD_USER_INPUT"


async def test_a_cursor_that_is_none(client: Client) -> None:
    with pytest.raises(Refused) as refused:
        await client.ask('{ deployments(after: "nonsense") { nodes { id } } }')
    assert refused.value.code == "BAD_USER_INPUT"


@pytest.mark.parametrize("token", ["", "wrong"])
@pytest.mark.parametrize("document", ["{ hosts { totalCount } }", "{ __schema { types { name } } }", "{ nothing }"])
async def test_without_a_token_nothing_is_told(client: Client, document: str, token: str) -> None:
    answer = await client.post(document, token=token)
    [error] = answer.json()["errors"]
    assert error["extensions"] == {"code": "UNAUTHENTICATED", "status": 401}
    assert "nothing" not in answer.text
    assert answer.json().get("data") is None


@pytest.mark.parametrize("headers", [{"Origin": "https://elsewhere.example"}, {"Host": "elsewhere.example"}])
async def test_a_foreign_page_is_not_allowed_to_ask(
    client: Client, http: httpx.AsyncClient, headers: dict[str, str]
) -> None:
    own = {"Authorization": f"Bearer {client.server.token}"}
    answer = await http.post("/graphql", json={"query": "{ hosts { totalCount } }"}, headers={**own, **headers})
    assert answer.status_code == 403
    [error] = answer.json()["errors"]
    assert error["extensions"] == {"code": "FORBIDDEN", "status": 403}


async def test_the_unexpected_is_told_by_its_id_only(make_server: MakeServer, connect: Connect) -> None:
    server = make_server()
    client = connect(server)
    with connected(server) as database:
        database.execute(text("ALTER TABLE hosts RENAME TO lost_hosts"))
    values = {"name": "x", "transport": "LOCAL"}
    extensions = await refuse(client, "createHost", "INTERNAL_SERVER_ERROR", 500, **values)
    assert extensions.keys() == {"code", "status", "errorId"}
    assert extensions["errorId"] in server.log
    assert any(words in server.log for words in ("no such table: hosts", 'relation "hosts" does not exist'))
    answer = await client.post("{ hosts { totalCount } }")
    assert "no such table" not in answer.text
    assert "relation" not in answer.text
    assert answer.json()["errors"][0]["extensions"]["code"] == "INTERNAL_SERVER_ERROR"


async def test_a_get_runs_queries_only(client: Client, http: httpx.AsyncClient) -> None:
    headers = {"Authorization": f"Bearer {client.server.token}"}
    asked = await http.get("/graphql", params={"query": "{ hosts { totalCount } }"}, headers=headers)
    assert asked.status_code == 200
    assert "hosts" in asked.json()["data"]
    document = 'mutation { createHost(input: {name: "by-get", transport: LOCAL}) { host { id } } }'
    changed = await http.get("/graphql", params={"query": document}, headers=headers)
    assert changed.status_code >= 400 or changed.json()["errors"]
    listed = await client.ask("{ hosts(first: 100) { nodes { name } } }")
    assert "by-get" not in [host["name"] for host in listed["hosts"]["nodes"]]


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b'"x"', b"{}", b'{"query": 1}', b"\xff", b'{"query": "{"}']
)
async def test_a_request_that_is_none_is_the_clients_fault(
    client: Client, http: httpx.AsyncClient, body: bytes
) -> None:
    headers = {"Authorization": f"Bearer {client.server.token}", "Content-Type": "application/json"}
    answer = await http.post("/graphql", content=body, headers=headers)
    assert 200 <= answer.status_code < 500, answer.text
    assert "Traceback" not in client.server.log


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
async def test_the_server_is_well(http: httpx.AsyncClient, path: str) -> None:
    assert (await http.get(path)).status_code == 200


async def test_metrics_are_prometheus_text(http: httpx.AsyncClient) -> None:
    answer = await http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    assert "daos_runs" in answer.text


async def test_an_empty_list_has_no_nodes(client: Client) -> None:
    data = await client.ask(
        "query($filter: DeploymentFilter) { deployments(filter: $filter) { nodes { id } totalCount } }",
        filter={"hostId": NOBODY},
    )
    assert data == {"deployments": {"nodes": [], "totalCount": 0}}


async def test_a_project_name_is_made_where_none_is_given(client: Client, idle: dict[str, str]) -> None:
    payload = await client.change(
        "createDeployment",
        "deployment { id projectName status createdAt updatedAt host { id } package { id name } }",
        hostId=idle["host"],
        packageId=idle["package"],
    )
    made = payload["deployment"]
    assert made["projectName"].startswith("e2e-")
    assert made["id"][-8:] in made["projectName"]
    assert made["status"] == "PENDING"
    assert made["createdAt"].endswith("Z")
    assert made["createdAt"] <= made["updatedAt"]
