"""Deployments that go well, on this machine and over SSH."""

import json
import subprocess
from collections.abc import Sequence
from uuid import UUID

import pytest
from sqlalchemy import inspect, text

from db.phase import Phase
from tests.conftest import MakeSshd
from tests.e2e.conftest import NewProject
from tests.support.client import ONCE, SLEEPER, UNDECIDED, Client, make_well, service
from tests.support.database import connected
from tests.support.docker import Docker
from tests.support.server import Server
from tests.support.sshd import SshServer

HOSTILE = {
    "QUOTES": 'it\'s "quoted" `back`',
    "LINES": "first\nsecond\n\nfourth\n",
    "DOLLARS": "$HOME ${HOME} $$ ${UNSET:-x} $(id)",
    "TEMPLATE": "{{ lookup('pipe', 'id') }} {% raw %} {# c #}",
    "BACKSLASHES": "a\\nb\\\\ \\' \\\" end\\",
    "BOTH": "'\\$x\\'\\",
    "BLANKS": "  two \t tabs  ",
    "HASH": "a # b #c",
    "UNICODE": "äöü ✓ 🚀 \u202e",
    "EMPTY": "",
    "CARRIAGE": "a\r\nb\rc",
    "EQUALS": "=a=b=",
    "CONTROL": "a\x01\x1b[31mb\x7f",
}


async def test_a_deployment_runs_to_success(client: Client, host: str, project: str, docker: Docker) -> None:
    deployment = await client.deployment(host, await client.package({"web": SLEEPER}), project)
    run_id = await client.start(deployment)
    run = await client.end_of(run_id)

    assert (run["status"], run["reason"], run["progress"]) == ("SUCCESS", None, 1.0), await client.words(run_id)
    assert run["deployment"]["status"] == "SUCCESS"
    [web] = run["containers"]
    expected = {"service": "web", "image": "demo:1", "state": "RUNNING", "health": None, "exitCode": None}
    assert web.items() >= expected.items()
    assert run["message"]
    assert run["queuedAt"] <= run["startedAt"] <= run["finishedAt"]
    assert len(docker.containers(project)) == 1

    log = await client.log(run_id)
    assert [entry["sequence"] for entry in log] == list(range(1, len(log) + 1))
    phases = [entry["phase"] for entry in log if entry["phase"]]
    assert sorted(set(phases), key=phases.index) == ["PREPARE", "UP", "VERIFY"]
    assert {entry["level"] for entry in log} == {"INFO"}
    document = "query($id: ID!) { run(id: $id) { phases { phase startedAt finishedAt outcome } } }"
    played = (await client.ask(document, id=run_id))["run"]["phases"]
    outcomes = {each["phase"]: each["outcome"] for each in played}
    assert outcomes == {"PREPARE": "OK", "BUILD": "SKIPPED", "PULL": "SKIPPED", "UP": "OK", "VERIFY": "OK"}
    times = [each[name] for each in played for name in ("startedAt", "finishedAt") if each["outcome"] == "OK"]
    assert times == sorted(times)


async def test_the_latest_run_and_all_runs_are_listed(client: Client, project: str) -> None:
    deployment = await client.deployment(await client.local_host(), await client.package({"once": ONCE}), project)
    first = await client.play(deployment)
    second = await client.play(deployment)
    document = """query($id: ID!) { deployment(id: $id) {
        status latestRun { id number } runs { nodes { id number } totalCount } logs { totalCount } } }"""
    found = (await client.ask(document, id=deployment))["deployment"]
    assert found["latestRun"] == {"id": second["id"], "number": 2}
    assert found["runs"]["nodes"] == [{"id": second["id"], "number": 2}, {"id": first["id"], "number": 1}]
    assert found["logs"]["totalCount"] == len(await client.log(first["id"])) + len(await client.log(second["id"]))


async def test_deployments_are_listed_newest_first_with_their_hosts_and_packages(
    client: Client, new_project: NewProject
) -> None:
    hosts, packages = [], []
    for _ in range(3):
        hosts.append(await client.local_host())
        packages.append(await client.package({"once": ONCE}))
        await client.deployment(hosts[-1], packages[-1], new_project())
    listed = await client.ask("{ deployments(first: 3) { nodes { status host { id } package { id version } } } }")
    assert listed["deployments"]["nodes"] == [
        {"status": "PENDING", "host": {"id": host}, "package": {"id": package, "version": "1"}}
        for host, package in reversed(list(zip(hosts, packages, strict=True)))
    ]


async def test_a_run_without_a_change_leaves_the_containers(
    client: Client, sshd: SshServer, project: str, docker: Docker
) -> None:
    host = await client.ssh_host(sshd)
    deployment = await client.deployment(host, await client.package({"web": SLEEPER}), project)
    await client.play(deployment)
    before = docker.containers(project)
    run = await client.play(deployment)
    assert run["status"] == "SUCCESS"
    assert docker.containers(project) == before


async def test_a_deletion_takes_runs_and_logs_and_leaves_the_host_alone(
    client: Client, server: Server, project: str, docker: Docker
) -> None:
    variables = [{"name": "TOKEN", "value": "told to nobody", "secret": True}]
    package = await client.package({"web": SLEEPER})
    deployment = await client.deployment(await client.local_host(), package, project, variables)
    run = await client.play(deployment)
    before = docker.containers(project)
    assert _tables_with(server, deployment) == {"deployments", "variables", "runs", "status_events"}
    assert "log_entries" in _tables_with(server, run["id"])
    await client.change("deleteDeployment", "deletedDeploymentId", deploymentId=deployment)
    assert docker.containers(project) == before != []
    assert _tables_with(server, run["id"]) == set()
    assert _tables_with(server, deployment) == {"deleted_deployments"}  # for those who follow the changes of all


async def test_the_host_key_is_pinned_at_the_first_run(client: Client, sshd: SshServer, project: str) -> None:
    host = await client.ssh_host(sshd)
    document = "query($id: ID!) { host(id: $id) { hostKeyFingerprint } }"
    assert (await client.ask(document, id=host))["host"]["hostKeyFingerprint"] is None
    deployment = await client.deployment(host, await client.package({"once": ONCE}), project)
    assert (await client.play(deployment))["status"] == "SUCCESS"
    assert (await client.ask(document, id=host))["host"]["hostKeyFingerprint"] == sshd.host_key_fingerprint


async def test_variables_arrive_as_they_are(client: Client, host: str, project: str, docker: Docker) -> None:
    environment = {name: f"${{{name}}}" for name in HOSTILE}
    package = await client.package({"web": {**SLEEPER, "environment": environment}})
    variables = [
        {"name": name, "value": value, "secret": number % 2 == 1}
        for number, (name, value) in enumerate(HOSTILE.items())
    ]
    run = await client.play(await client.deployment(host, package, project, variables))
    assert run["status"] == "SUCCESS", await client.words(run["id"])
    [container] = docker.containers(project)
    arrived = _environment(docker, container)
    assert {name: arrived.get(name) for name in HOSTILE} == HOSTILE


async def test_further_files_arrive_and_a_container_reads_them(
    client: Client, host: str, project: str, docker: Docker
) -> None:
    files = {"site/index.html": "hé {{ x }} $y\r\n", "deep/er/a b.txt": "", "run.sh": "#!/bin/sh\nexit 0\n"}
    volumes = ["./site:/files/site:ro", "./deep:/files/deep", "./run.sh:/files/run.sh", ".:/all"]
    package = await client.package({"web": service("sleep", "1000", volumes=volumes, user="65534")}, files)
    run = await client.play(await client.deployment(host, package, project))
    assert run["status"] == "SUCCESS", await client.words(run["id"])
    [container] = docker.containers(project)
    for path, content in files.items():
        assert _read(container, f"/files/{path}") == _read(container, f"/all/{path}") == content.encode()


async def test_a_changed_package_replaces_what_ran(client: Client, project: str, docker: Docker) -> None:
    host = await client.local_host()
    first = await client.deployment(host, await client.package({"old": SLEEPER, "same": SLEEPER}), project)
    await client.play(first)
    await client.change("deleteDeployment", "deletedDeploymentId", deploymentId=first)
    second = await client.deployment(host, await client.package({"same": SLEEPER, "new": SLEEPER}), project)
    run = await client.play(second)
    assert run["status"] == "SUCCESS", await client.words(run["id"])
    assert [found["service"] for found in run["containers"]] == ["new", "same"]
    assert len(docker.containers(project)) == 2


async def test_down_takes_the_project_down(client: Client, host: str, project: str, docker: Docker) -> None:
    deployment = await client.deployment(host, await client.package({"web": SLEEPER}), project)
    await client.play(deployment)
    run = await client.play(deployment, "DOWN")
    assert (run["status"], run["action"], run["containers"]) == ("SUCCESS", "DOWN", [])
    assert docker.containers(project) == []
    run = await client.play(deployment)
    assert run["status"] == "SUCCESS"
    assert len(docker.containers(project)) == 1


@pytest.mark.parametrize("restart", ["no", "on-failure"])
async def test_a_service_that_ends_well_counts_as_well(client: Client, project: str, restart: str) -> None:
    package = await client.package({"once": {**ONCE, "restart": restart}, "web": SLEEPER})
    run = await client.play(await client.deployment(await client.local_host(), package, project))
    assert run["status"] == "SUCCESS", await client.words(run["id"])
    [once, web] = run["containers"]
    assert (once["state"], once["exitCode"], web["state"]) == ("EXITED", 0, "RUNNING")


async def test_a_health_check_is_waited_for(client: Client, sshd: SshServer, project: str, docker: Docker) -> None:
    package = await client.package({"web": UNDECIDED})
    run_id = await client.start(await client.deployment(await client.ssh_host(sshd), package, project))
    await client.phase(run_id, Phase.VERIFY)
    assert (await client.run(run_id))["status"] == "RUNNING"
    make_well(docker, project)
    run = await client.end_of(run_id)
    assert run["status"] == "SUCCESS", await client.words(run_id)
    assert [found["health"] for found in run["containers"]] == ["HEALTHY"]


async def test_the_environment_of_a_login_does_not_matter(client: Client, make_sshd: MakeSshd, project: str) -> None:
    sshd = make_sshd(options=["SetEnv COMPOSE_FILE=/nowhere COMPOSE_PROJECT_NAME=other LC_ALL=C"])
    deployment = await client.deployment(await client.ssh_host(sshd), await client.package({"once": ONCE}), project)
    run = await client.play(deployment)
    assert run["status"] == "SUCCESS", await client.words(run["id"])


def _tables_with(server: Server, identity: str) -> set[str]:
    """The tables of the server's database that have this id in any row, but for the audit, which forgets nothing."""
    needle = UUID(identity).hex
    with connected(server) as database:
        tables = set(inspect(database).get_table_names()) - {"audit_entries"}
        rows = {name: str(database.execute(text(f"SELECT * FROM {name}")).all()) for name in tables}  # noqa: S608
    return {name for name, words in rows.items() if needle in words.replace("-", "")}


def _read(container: str, path: str) -> bytes:
    return subprocess.run(["docker", "exec", container, "cat", path], check=True, capture_output=True).stdout


def _environment(docker: Docker, container: str) -> dict[str, str]:
    entries: Sequence[str] = json.loads(docker.run("inspect", "--format", "{{json .Config.Env}}", container))
    return dict(entry.split("=", 1) for entry in entries)
