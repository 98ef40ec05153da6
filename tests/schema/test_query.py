"""Every query of the contract, what it shows, and how many statements it takes."""

import re
from typing import Any

import pytest
from sqlalchemy import text

from db import run_phases, status
from db.containers import ContainerHealth, ContainerState
from db.models import Deployment, Host, HostTransport, RunAction, RunStatus
from db.phase import Phase, PhaseOutcome
from db.run_phases import PhaseChange
from resolvers.hosts import HOSTS
from runner.store import Capacity
from tests import factories
from tests.support.api import Api
from tests.support.attacks import UNKNOWN
from tests.support.recording_engine import RecordingEngine
from tests.support.statements import selects

DATE_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")

PAGE = "pageInfo { hasNextPage hasPreviousPage startCursor endCursor } totalCount"
HOST = "id name transport address port user sshKeyPath hostKeyFingerprint createdAt updatedAt"
PACKAGE = "id name version composeFile files { path text } createdAt updatedAt"
RUN = """
    id number action trigger createdBy status reason message progress queuedAt startedAt finishedAt
    warnings containers { name service image state health exitCode restarts startedAt ports }
"""
ENTRY = "sequence at level phase message"
DEPLOYMENT = f"""
    id status projectName createdAt updatedAt variables {{ name value secret }} missingVariables
    host {{ {HOST} }} package {{ {PACKAGE} }} latestRun {{ {RUN} deployment {{ id }} }} current {{ number }}
"""


async def _deployed(api: Api) -> Deployment:
    """A deployment with all that one can have."""
    pinned = {"host_key_fingerprint": "SHA256:abc", "known_hosts": "secret line"}
    host = await factories.host(api.db, ssh_key_path="/keys/web", **pinned)
    package = await factories.package(
        api.db, files={"b.conf": "2", "a.conf": "1", "compose.override.yaml": "x: $OPEN $HIDDEN $MISSING"}
    )
    variables = {"OPEN": "plain"}
    deployment = await factories.deployment(
        api.db, on=host, of=package, variables=variables, secrets={"HIDDEN": "s3cret"}
    )
    await factories.log(api.db, await factories.run(api.db, deployment, RunStatus.FAILED), 2)
    started: dict[str, Any] = {"started_at": factories.LONG_AGO, "ports": ("127.0.0.1:8080->80/tcp",), "restarts": 2}
    containers = [
        factories.container(health=ContainerHealth.HEALTHY, **started),
        factories.container("job", state=ContainerState.EXITED, exit_code=0),
    ]
    await factories.log(api.db, await factories.run(api.db, deployment, RunStatus.SUCCESS, containers=containers), 3)
    return deployment


async def test_a_deployment_with_everything(api: Api) -> None:
    key = str((await _deployed(api)).id)
    document = f"""query ($id: ID!) {{ deployment(id: $id) {{
        {DEPLOYMENT}
        runs {{ edges {{ cursor node {{ number }} }} nodes {{ {RUN} log {{ nodes {{ {ENTRY} }} {PAGE} }} }} {PAGE} }}
        logs {{ edges {{ cursor node {{ {ENTRY} }} }} nodes {{ {ENTRY} }} {PAGE} }}
    }} }}"""
    deployment = (await api.ask(document, id=key))["deployment"]
    assert (deployment["id"], deployment["status"]) == (key, "SUCCESS")
    assert deployment["variables"] == [
        {"name": "HIDDEN", "value": None, "secret": True},
        {"name": "OPEN", "value": "plain", "secret": False},
    ]
    assert deployment["missingVariables"] == ["MISSING"]
    host = deployment["host"]
    assert (host["transport"], host["port"], host["user"]) == ("SSH", 22, "root")
    assert (host["sshKeyPath"], host["hostKeyFingerprint"]) == ("/keys/web", "SHA256:abc")
    assert deployment["package"]["composeFile"] == factories.COMPOSE_FILE
    assert [file["path"] for file in deployment["package"]["files"]] == ["a.conf", "b.conf", "compose.override.yaml"]
    assert deployment["package"]["files"][0] == {"path": "a.conf", "text": "1"}
    latest = deployment["latestRun"]
    assert (latest["number"], latest["action"], latest["status"], latest["progress"]) == (2, "UP", "SUCCESS", 1.0)
    assert (latest["trigger"], latest["createdBy"]) == ("API", "test")
    assert (latest["reason"], latest["message"]) == (None, "It ended as SUCCESS.")
    assert latest["deployment"] == {"id": key}
    assert deployment["current"] == {"number": 2}
    assert latest["containers"] == [
        {
            "name": "demo-web-1", "service": "web", "image": "demo:1", "state": "RUNNING", "health": "HEALTHY",
            "exitCode": None, "restarts": 2, "startedAt": "2026-01-31T12:00:00.000Z",
            "ports": ["127.0.0.1:8080->80/tcp"],
        },
        {
            "name": "demo-job-1", "service": "job", "image": "demo:1", "state": "EXITED", "health": None,
            "exitCode": 0, "restarts": 0, "startedAt": None, "ports": [],
        },
    ]  # fmt: skip
    assert latest["warnings"] == []
    runs = deployment["runs"]
    assert [(run["number"], run["status"], run["reason"]) for run in runs["nodes"]] == [
        (2, "SUCCESS", None),
        (1, "FAILED", "TASK_FAILED"),
    ]
    assert [edge["node"]["number"] for edge in runs["edges"]] == [2, 1]
    assert runs["totalCount"] == 2
    assert runs["pageInfo"]["startCursor"] == runs["edges"][0]["cursor"]
    assert runs["pageInfo"]["endCursor"] == runs["edges"][-1]["cursor"]
    assert [entry["message"] for entry in runs["nodes"][0]["log"]["nodes"]] == ["line 1", "line 2", "line 3"]
    assert [entry["sequence"] for entry in deployment["logs"]["nodes"]] == [1, 2, 1, 2, 3]
    assert deployment["logs"]["totalCount"] == 5
    entry = deployment["logs"]["nodes"][0]
    assert entry == {
        "sequence": 1, "at": "2026-01-31T12:00:01.000Z", "level": "INFO", "phase": "UP", "message": "line 1",
    }  # fmt: skip
    times = [deployment["createdAt"], deployment["updatedAt"], host["createdAt"], host["updatedAt"]]
    times += [latest["queuedAt"], latest["startedAt"], latest["finishedAt"]]
    assert all(DATE_TIME.fullmatch(time) for time in times)


async def test_hosts_packages_and_runs_by_their_ids(api: Api) -> None:
    deployment = await _deployed(api)
    run = await factories.run(api.db, deployment)
    document = f"""query ($host: ID!, $package: ID!, $run: ID!) {{
        host(id: $host) {{ {HOST} deployments {{ nodes {{ id }} {PAGE} }} }}
        package(id: $package) {{ {PACKAGE} deployments {{ nodes {{ id }} {PAGE} }} }}
        run(id: $run) {{ {RUN} deployment {{ id status }} }}
    }}"""
    answer = await api.ask(document, host=str(deployment.host_id), package=str(deployment.package_id), run=str(run.id))
    for parent in ("host", "package"):
        assert answer[parent]["deployments"]["nodes"] == [{"id": str(deployment.id)}]
        assert answer[parent]["deployments"]["totalCount"] == 1
    assert answer["run"]["deployment"] == {"id": str(deployment.id), "status": "RUNNING"}
    assert (answer["run"]["startedAt"], answer["run"]["finishedAt"], answer["run"]["progress"]) == (None, None, 0.0)


async def test_the_servers_own_machine(api: Api) -> None:
    host = await factories.host(api.db, transport=HostTransport.LOCAL, address=None)
    answer = await api.ask(f"query ($id: ID!) {{ host(id: $id) {{ {HOST} }} }}", id=str(host.id))
    assert answer["host"]["transport"] == "LOCAL"
    assert [answer["host"][name] for name in ("address", "sshKeyPath", "hostKeyFingerprint")] == [None] * 3


@pytest.mark.parametrize("field", ["hosts", "packages", "deployments", "runs"])
async def test_a_list_with_nothing_in_it(api: Api, field: str) -> None:
    answer = await api.ask(f"{{ {field} {{ edges {{ cursor }} nodes {{ id }} {PAGE} }} }}")
    info = {"hasNextPage": False, "hasPreviousPage": False, "startCursor": None, "endCursor": None}
    assert answer[field] == {"edges": [], "nodes": [], "pageInfo": info, "totalCount": 0}


@pytest.mark.parametrize("field", ["hosts", "packages", "deployments", "runs"])
async def test_lists_are_paged_both_ways_newest_first(api: Api, field: str) -> None:
    make: Any = {
        "hosts": factories.host,
        "packages": factories.package,
        "deployments": factories.deployment,
        "runs": factories.run,
    }[field]
    ids = [str((await make(api.db)).id) for _ in range(5)][::-1]
    document = f"""query ($first: Int, $after: String, $last: Int, $before: String) {{
        {field}(first: $first, after: $after, last: $last, before: $before) {{ nodes {{ id }} {PAGE} }}
    }}"""

    async def page(**arguments: object) -> tuple[list[str], dict[str, Any]]:
        found = (await api.ask(document, **arguments))[field]
        assert found["totalCount"] == 5
        return [node["id"] for node in found["nodes"]], found["pageInfo"]

    start, info = await page(first=2)
    assert (start, info["hasNextPage"], info["hasPreviousPage"]) == (ids[:2], True, False)
    assert (await page(first=2, after=info["endCursor"]))[0] == ids[2:4]
    end, info = await page(last=2)
    assert (end, info["hasNextPage"], info["hasPreviousPage"]) == (ids[3:], False, True)
    assert (await page(last=2, before=info["startCursor"]))[0] == ids[1:3]
    assert (await page(first=None, after=None, last=None, before=None))[0] == ids


async def test_what_is_wrong_with_a_page_is_told_at_its_place(api: Api) -> None:
    cursor = HOSTS.cursor([1])
    result = await api.execute("query ($c: String) { deployments(first: 101, after: $c) { nodes { id } } }", c=cursor)
    assert result.data is None
    assert result.errors is not None
    assert result.errors[0].extensions == {
        "code": "BAD_USER_INPUT",
        "status": 400,
        "problems": [
            {"path": ["first"], "code": "RANGE", "message": "first must be from 0 to 100."},
            {"path": ["after"], "code": "CURSOR", "message": "after is not a cursor of this list."},
        ],
    }


async def test_deployments_are_filtered(api: Api) -> None:
    wanted, other = await factories.deployment(api.db), await factories.deployment(api.db)
    await factories.run(api.db, wanted)
    both = {str(other.id), str(wanted.id)}
    document = "query ($filter: DeploymentFilter) { deployments(filter: $filter) { nodes { id } totalCount } }"
    for filtered, expected in (
        ({"statusIn": ["RUNNING", "FAILED"]}, {str(wanted.id)}),
        ({"hostId": str(wanted.host_id)}, {str(wanted.id)}),
        ({"packageId": str(wanted.package_id), "statusIn": ["RUNNING"]}, {str(wanted.id)}),
        ({"hostId": str(other.host_id), "statusIn": ["RUNNING"]}, set()),
        ({"statusIn": []}, set()),
        ({"hostId": ""}, set()),
        ({"packageId": "no id"}, set()),
        ({"hostId": None, "packageId": None, "statusIn": None}, both),
        ({}, both),
        (None, both),
    ):
        found = (await api.ask(document, filter=filtered))["deployments"]
        assert {node["id"] for node in found["nodes"]} == expected, filtered
        assert found["totalCount"] == len(expected)


@pytest.mark.parametrize("field", ["deployment", "host", "package", "run"])
async def test_what_is_not_there_is_not_found(api: Api, field: str) -> None:
    for unknown in UNKNOWN:
        error = await api.error(f"query ($id: ID!) {{ {field}(id: $id) {{ id }} }}", id=unknown)
        assert error["extensions"] == {"code": "NOT_FOUND", "status": 404}
        assert error["path"] == [field]
        source = "field runs of its deployment" if field == "run" else f"query {field}s"
        assert error["message"] == f"{field.capitalize()} '{unknown}' was not found; the {source} lists the ids."


async def test_anything_is_found_by_its_id_alone(api: Api) -> None:
    run = await factories.run(api.db)
    deployment = await api.db_get(Deployment, run.deployment_id)
    ids = {"Run": run.id, "Deployment": deployment.id, "Host": deployment.host_id, "Package": deployment.package_id}
    for name, key in ids.items():
        answer = await api.ask("query ($id: ID!) { node(id: $id) { __typename id } }", id=str(key))
        assert answer["node"] == {"__typename": name, "id": str(key)}


async def test_nodes_are_found_by_their_ids_in_order(api: Api) -> None:
    deployment = await factories.deployment(api.db)
    document = "query ($ids: [ID!]!) { nodes(ids: $ids) { __typename id ... on Host { name } } }"
    found = await api.ask(document, ids=[str(deployment.host_id), UNKNOWN[0], "no id", str(deployment.id)])
    host = await api.db_get(Host, deployment.host_id)
    assert found["nodes"] == [
        {"__typename": "Host", "id": str(host.id), "name": host.name},
        None,
        None,
        {"__typename": "Deployment", "id": str(deployment.id)},
    ]
    result = await api.execute(document, ids=["no id"] * 101)
    assert result.errors is not None
    problem = {"path": ["ids"], "code": "RANGE", "message": "ids must have at most 100 ids."}
    assert result.errors[0].extensions == {"code": "BAD_USER_INPUT", "status": 400, "problems": [problem]}


async def test_hosts_and_deployments_are_found_by_their_names(api: Api) -> None:
    one, other = await factories.host(api.db, name="one"), await factories.host(api.db, name="other")
    here, there = [await factories.deployment(api.db, on=host, project_name="shop") for host in (one, other)]
    document = """query ($host: String!, $project: String!) {
        hostByName(name: $host) { id } deploymentByName(host: $host, project: $project) { id }
    }"""
    for host, deployment in ((one, here), (other, there)):
        told = await api.ask(document, host=host.name, project="shop")
        assert told == {"hostByName": {"id": str(host.id)}, "deploymentByName": {"id": str(deployment.id)}}
    for host_name, project in (("third", "shop"), ("one", "Shop"), *((name, name) for name in UNKNOWN)):
        told = await api.ask(document, host=host_name, project=project)
        assert told == {
            "hostByName": {"id": str(one.id)} if host_name == "one" else None,
            "deploymentByName": None,
        }


async def test_an_id_that_nothing_has_is_no_node(api: Api) -> None:
    for unknown in UNKNOWN:
        assert await api.ask("query ($id: ID!) { node(id: $id) { id } }", id=unknown) == {"node": None}


async def test_a_list_of_fifty_deployments_takes_as_many_statements_as_one_of_two(api: Api) -> None:
    document = f"""{{ deployments(first: 50) {{ totalCount nodes {{ {DEPLOYMENT} }} }} }}"""

    async def statements() -> tuple[int, int]:
        with selects() as seen:
            answer = await api.ask(document)
        return len(answer["deployments"]["nodes"]), len(seen)

    async def deploy() -> None:
        await factories.run(api.db, await factories.deployment(api.db, variables={"A": "1"}), RunStatus.SUCCESS)

    for _ in range(2):
        await deploy()
    count, few = await statements()
    for _ in range(48):
        await deploy()
    assert (await statements(), count) == ((50, few), 2)
    # Deployments, their number; hosts, packages, files, variables, latest runs, and these runs' deployments;
    # for missing variables the deployments' packages, names of variables, and what the packages require;
    # Compose files, and how large these and the variables are, before they are read.
    assert few == 15


async def test_phases_of_fifty_runs_take_one_statement_and_are_those_of_each(api: Api) -> None:
    deployment = await factories.deployment(api.db)
    for _ in range(49):
        await factories.run(api.db, deployment, RunStatus.FAILED, action=RunAction.DOWN)
    run = await factories.run(api.db, deployment, RunStatus.RUNNING)
    started = factories.LONG_AGO
    changes = [PhaseChange(Phase.PREPARE, started), PhaseChange(Phase.BUILD, started, PhaseOutcome.OK)]
    async with api.db.write() as session:
        await run_phases.record(session, run.id, run.action, changes)
    document = "{ runs(first: 50) { nodes { phases { phase startedAt finishedAt outcome } } } }"
    with selects() as seen:
        first, *rest = (await api.ask(document))["runs"]["nodes"]
    assert len(seen) == 2
    unplayed = {"startedAt": None, "finishedAt": None, "outcome": "SKIPPED"}
    assert first["phases"] == [
        {"phase": "PREPARE", "startedAt": "2026-01-31T12:00:00.000Z", "finishedAt": None, "outcome": None},
        {"phase": "BUILD", **unplayed},
    ]
    assert rest == [{"phases": [{"phase": "DOWN", **unplayed}]}] * 49


async def test_phases_that_are_not_known_are_left_out(api: Api) -> None:
    await factories.run(api.db, to=RunStatus.FAILED)
    async with api.db.write() as session:
        await session.execute(text("UPDATE run_phases SET phase = 'WASH' WHERE position <> 1"))
        await session.execute(text("UPDATE run_phases SET outcome = 'CLEAN'"))
    [run] = (await api.ask("{ runs { nodes { phases { phase outcome } } } }"))["runs"]["nodes"]
    assert run["phases"] == [{"phase": "BUILD", "outcome": None}]


async def test_pages_below_fifty_deployments_take_one_statement_a_level(api: Api) -> None:
    host = await factories.host(api.db)
    for _ in range(50):
        await factories.log(
            api.db, await factories.run(api.db, await factories.deployment(api.db, on=host), RunStatus.FAILED), 2
        )
    document = """{ hosts { nodes { deployments(first: 50) { totalCount nodes {
        runs(first: 2) { totalCount nodes { number log(last: 1) { totalCount nodes { sequence } } } }
        logs(last: 2) { nodes { sequence } }
    } } } } }"""
    with selects() as seen:
        answer = await api.ask(document)
    [found] = answer["hosts"]["nodes"]
    assert found["deployments"]["totalCount"] == 50
    run = {"number": 1, "log": {"totalCount": 2, "nodes": [{"sequence": 2}]}}
    below = {"runs": {"totalCount": 1, "nodes": [run]}, "logs": {"nodes": [{"sequence": 1}, {"sequence": 2}]}}
    assert found["deployments"]["nodes"] == [below] * 50
    assert len(seen) == 8  # hosts; a page and a count each of deployments, runs and log; a page of logs


async def test_different_pages_of_one_list_do_not_mix(api: Api) -> None:
    run = await factories.run(api.db)
    await factories.log(api.db, run, 5)
    document = """query ($id: ID!) { run(id: $id) {
        a: log(first: 2) { nodes { sequence } } b: log(last: 1) { nodes { sequence } }
    } }"""
    found = (await api.ask(document, id=str(run.id)))["run"]
    assert found == {"a": {"nodes": [{"sequence": 1}, {"sequence": 2}]}, "b": {"nodes": [{"sequence": 5}]}}


async def test_a_secret_is_nowhere_in_the_api(api: Api) -> None:
    key = str((await _deployed(api)).id)
    document = f"query ($id: ID!) {{ node(id: $id) {{ ... on Deployment {{ {DEPLOYMENT} }} }} }}"
    assert "s3cret" not in str(await api.ask(document, id=key))


async def test_operations_on_one_connection_see_each_the_state_of_their_time(api: Api) -> None:
    run = await factories.run(api.db)
    document = "query ($id: ID!) { deployment(id: $id) { latestRun { number } } }"

    async def number() -> object:
        return (await api.ask(document, id=str(run.deployment_id)))["deployment"]["latestRun"]["number"]

    assert await number() == 1
    await api.ask("mutation ($id: ID!) { cancelRun(input: {runId: $id}) { run { id } } }", id=str(run.id))
    await factories.run(api.db, await api.db_get(Deployment, run.deployment_id))
    assert await number() == 2


async def test_a_queued_run_says_where_it_stands_and_what_it_waits_for(api: Api, engine: RecordingEngine) -> None:
    engine.room = Capacity(runs=3, per_host=2)
    full, free = await factories.host(api.db), await factories.host(api.db)
    for on, to in ((full, RunStatus.RUNNING), (full, RunStatus.RUNNING), (full, RunStatus.SUCCESS)):
        await factories.run(api.db, await factories.deployment(api.db, on=on), to)
    for on in (full, free, free):
        await factories.run(api.db, await factories.deployment(api.db, on=on))
    answer = await api.ask("{ deployments { nodes { latestRun { status queuePosition blockedBy } } } }")
    played = {"queuePosition": None, "blockedBy": None}
    assert [node["latestRun"] for node in answer["deployments"]["nodes"]][::-1] == [
        {"status": "RUNNING"} | played,
        {"status": "RUNNING"} | played,
        {"status": "SUCCESS"} | played,
        {"status": "QUEUED", "queuePosition": 3, "blockedBy": "HOST_LIMIT"},
        {"status": "QUEUED", "queuePosition": 1, "blockedBy": None},
        {"status": "QUEUED", "queuePosition": 2, "blockedBy": "SERVER_LIMIT"},
    ]


async def test_the_places_of_fifty_runs_take_one_statement(api: Api) -> None:
    host = await factories.host(api.db)
    for _ in range(50):
        await factories.run(api.db, await factories.deployment(api.db, on=host))
    document = "{ deployments(first: 50) { nodes { latestRun { queuePosition blockedBy } } } }"
    with selects() as seen:
        answer = await api.ask(document)
    positions = [node["latestRun"]["queuePosition"] for node in answer["deployments"]["nodes"]]
    assert positions == [*range(50, 0, -1)]
    assert len(seen) == 3  # deployments, their latest runs, and the places of these


async def test_a_run_that_was_taken_meanwhile_has_no_place(api: Api) -> None:
    run = await factories.run(api.db)
    document = "query ($id: ID!) { run(id: $id) { queuePosition } }"
    assert await api.ask(document, id=str(run.id)) == {"run": {"queuePosition": 1}}
    async with api.db.write() as session:
        await status.claim(session, run.id, "worker")
    assert await api.ask(document, id=str(run.id)) == {"run": {"queuePosition": None}}
