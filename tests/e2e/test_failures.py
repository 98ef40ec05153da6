"""Every reason of a failure, from its real cause."""

import asyncio
import json
import secrets
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from db.phase import Phase
from tests.conftest import MakeSshd
from tests.e2e.conftest import QUICK, Connect, MakeServer, NewProject
from tests.support.client import NEVER_UP, PATIENCE, SLEEPER, UNDECIDED, Client, Json, service
from tests.support.docker import Docker
from tests.support.port import free_port
from tests.support.programs import link_programs
from tests.support.server import Server, at_work
from tests.support.sshd import SshServer


@pytest.fixture(scope="module")
def impatient_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that soon gives a host up, and containers."""
    hasty = {"DAOS_CONNECT_TIMEOUT": "1", "DAOS_VERIFY_TIMEOUT": "2", "DAOS_WARM": "false"}
    server = Server(tmp_path_factory.mktemp("server"), {**QUICK, **hasty})
    server.start()
    yield server
    server.close()


@pytest.fixture
async def impatient(impatient_server: Server) -> AsyncIterator[Client]:
    """A client of the impatient server."""
    client = Client(impatient_server)
    yield client
    await client.close()


async def fail(client: Client, deployment_id: str, reason: str, *words: str, seconds: float = PATIENCE) -> Json:
    """Play the deployment, and see that it fails for `reason` and that message or log have all of `words`."""
    run = await client.play(deployment_id, seconds=seconds)
    log = await client.words(run["id"])
    assert (run["status"], run["reason"]) == ("FAILED", reason), f"{run}\n{log}"
    assert run["deployment"]["status"] == "FAILED"
    assert run["message"]
    errors = await client.words(run["id"], "ERROR")
    assert errors, log
    for word in words:
        assert word.lower() in f"{run['message']}\n{log}".lower(), log
    return run


async def fail_to_reach(client: Client, host_id: str, reason: str, *words: str) -> Json:
    deployment = await client.deployment(host_id, await client.package({"web": SLEEPER}), _unused())
    return await fail(client, deployment, reason, *words)


async def fail_with(client: Client, services: Any, project: str, reason: str, *words: str) -> Json:
    deployment = await client.deployment(await client.local_host(), await client.package(services), project)
    return await fail(client, deployment, reason, *words)


# The key on the server. sshd is never asked.


async def test_a_key_file_that_does_not_exist(client: Client, server: Server, sshd: SshServer) -> None:
    host = await client.ssh_host(sshd, sshKeyPath="/nowhere/id_ed25519")
    run = await fail_to_reach(client, host, "SSH_KEY_NOT_FOUND", "/nowhere/id_ed25519")
    assert (await client.log(run["id"]))[-1]["level"] == "ERROR"
    assert run["id"] in server.log
    assert "SSH_KEY_NOT_FOUND" in server.log
    assert not any(entry["phase"] for entry in await client.log(run["id"]))  # Ansible was not started


@pytest.mark.parametrize("kind", ["garbage", "empty", "passphrase", "mode", "directory", "public", "device"])
async def test_a_key_file_that_is_no_usable_key(client: Client, sshd: SshServer, tmp_path: Path, kind: str) -> None:
    host = await client.ssh_host(sshd, sshKeyPath=str(_bad_key(tmp_path / "key", kind, sshd)))
    run = await fail_to_reach(client, host, "SSH_KEY_INVALID")
    assert not any(entry["phase"] for entry in await client.log(run["id"]))


def _make_key(path: Path, passphrase: str = "") -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-f", path], check=True)
    return path


def _bad_key(path: Path, kind: str, sshd: SshServer) -> Path:
    match kind:
        case "garbage":
            path.write_bytes(secrets.token_bytes(600))
        case "empty":
            path.touch()
        case "passphrase":
            _make_key(path, passphrase="secret")
        case "mode":
            path.write_bytes(sshd.key_path.read_bytes())
            path.chmod(0o644)
            return path
        case "directory":
            path.mkdir()
            return path
        case "public":
            path.write_bytes(sshd.key_path.with_suffix(".pub").read_bytes())
        case "device":
            return Path("/dev/zero")
    path.chmod(0o600)
    return path


# The way to the host.


async def test_a_closed_port(client: Client, sshd: SshServer) -> None:
    host = await client.ssh_host(sshd, port=free_port(sshd.address))
    await fail_to_reach(client, host, "HOST_UNREACHABLE", "refuse")


async def test_an_unknown_name(client: Client, sshd: SshServer) -> None:
    host = await client.ssh_host(sshd, address="no-such-host.invalid")
    await fail_to_reach(client, host, "HOST_UNREACHABLE", "no-such-host.invalid")


async def test_a_host_that_never_answers(impatient: Client, sshd: SshServer) -> None:
    with socket.create_server((sshd.address, 0)) as silent:  # accepts, and says nothing
        host = await impatient.ssh_host(sshd, port=silent.getsockname()[1])
        await fail_to_reach(impatient, host, "HOST_UNREACHABLE", "answer")


async def test_a_port_where_something_else_answers(impatient: Client, server: Server, sshd: SshServer) -> None:
    host = await impatient.ssh_host(sshd, address="127.0.0.1", port=int(server.url.rsplit(":", 1)[1]))
    await fail_to_reach(impatient, host, "HOST_UNREACHABLE")


async def test_a_host_with_another_key_than_before(client: Client, make_sshd: MakeSshd, project: str) -> None:
    sshd = make_sshd()
    host = await client.ssh_host(sshd)
    deployment = await client.deployment(host, await client.package({"web": SLEEPER}), project)
    assert (await client.play(deployment))["status"] == "SUCCESS"
    before = sshd.host_key_fingerprint
    sshd.change_host_key()
    await fail(client, deployment, "HOST_KEY_MISMATCH", "REMOTE HOST IDENTIFICATION HAS CHANGED")
    found = await client.ask("query($id: ID!) { host(id: $id) { hostKeyFingerprint } }", id=host)
    assert found["host"]["hostKeyFingerprint"] == before


async def test_a_login_with_another_key(client: Client, sshd: SshServer, tmp_path: Path) -> None:
    host = await client.ssh_host(sshd, sshKeyPath=str(_make_key(tmp_path / "key")))
    await fail_to_reach(client, host, "AUTHENTICATION_FAILED", "Permission denied (publickey)")


async def test_a_login_as_another_user(client: Client, sshd: SshServer) -> None:
    host = await client.ssh_host(sshd, user="nobody")
    await fail_to_reach(client, host, "AUTHENTICATION_FAILED", "nobody", "Permission denied")


# The host.


async def test_a_host_without_docker(client: Client, make_sshd: MakeSshd, without_docker: Path) -> None:
    host = await client.ssh_host(make_sshd(path=str(without_docker)))
    await fail_to_reach(client, host, "DOCKER_UNAVAILABLE", "docker")


async def test_a_docker_daemon_that_does_not_answer(tmp_path: Path, connect: Connect, docker: Docker) -> None:
    server = Server(tmp_path, {**QUICK, "DAOS_WARM": "false", "DOCKER_HOST": "unix:///nowhere/docker.sock"})
    server.start()
    try:
        client = connect(server)
        run = await fail_to_reach(client, await client.local_host(), "DOCKER_UNAVAILABLE", "/nowhere/docker.sock")
        todo = " See that the daemon runs, and that the host's user may use it (group docker)."
        assert run["message"].startswith("Docker cannot be used on the host: ")
        assert run["message"].endswith(todo)
    finally:
        server.close()


@pytest.fixture
def without_docker(tmp_path: Path) -> Path:
    """A folder with the programs of this machine, docker apart."""
    return link_programs(tmp_path / "bin", without="docker")


# The project.


@pytest.mark.parametrize(
    ("services", "words"),
    [
        ({"web": {"image": "demo:1", "ports": "yes"}}, "ports"),
        ({"web": {"image": "demo:1", "depends_on": ["nothing"]}}, "nothing"),
        ({"web": {}}, "image"),
        ({"web": {**SLEEPER, "environment": {"A": "${A:?is needed}"}}}, "is needed"),
    ],
)
async def test_a_compose_file_that_docker_refuses(client: Client, project: str, services: Any, words: str) -> None:
    run = await fail_with(client, services, project, "COMPOSE_INVALID", words)
    assert words in run["message"]


async def test_an_image_that_cannot_be_had_leaves_the_old_containers_running(
    client: Client, sshd: SshServer, project: str, docker: Docker
) -> None:
    host = await client.ssh_host(sshd)
    old = await client.deployment(host, await client.package({"web": SLEEPER}), project)
    assert (await client.play(old))["status"] == "SUCCESS"
    before = docker.containers(project)
    await client.change("deleteDeployment", "deletedDeploymentId", deploymentId=old)

    image = "registry.invalid/no-such-image:1"
    package = await client.package({"web": {**SLEEPER, "image": image}, "other": SLEEPER})
    new = await client.deployment(host, package, project)
    run = await fail(client, new, "IMAGE_PULL_FAILED", "registry.invalid")
    assert docker.containers(project) == before
    assert [found["state"] for found in run["containers"]] == ["RUNNING"]


@pytest.mark.parametrize(
    ("services", "words"),
    [
        ({"web": service("sh", "-c", "echo last words; exit 3")}, ["code 3", "last words"]),
        ({"web": service("false", restart="always")}, ["restart"]),
        (
            {"web": service("sleep", "1000", healthcheck={"test": ["CMD", "false"], "interval": "0.2s", "retries": 2})},
            ["unhealthy"],
        ),
        ({"well": SLEEPER, "web": service("no-such-program")}, ["no-such-program"]),
        (
            {
                "db": service("false"),
                "web": {**SLEEPER, "depends_on": {"db": {"condition": "service_completed_successfully"}}},
            },
            ["db"],
        ),
    ],
    ids=["exit", "crash-loop", "health-check", "no-program", "dependency"],
)
async def test_a_container_that_is_not_well(client: Client, project: str, services: Any, words: list[str]) -> None:
    run = await fail_with(client, services, project, "UNHEALTHY", "web" if "db" not in services else "db", *words)
    assert {found["service"] for found in run["containers"]} == set(services)


async def test_a_port_that_is_taken(client: Client, project: str, docker: Docker) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        web = {"image": "demo:1", "command": ["sleep", "1000"], "init": True, "ports": [f"127.0.0.1:{port}:80"]}
        await fail_with(client, {"web": web}, project, "PORT_IN_USE", str(port))


async def test_a_project_of_another_directory(client: Client, project: str, docker: Docker, tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(json.dumps({"services": {"own": SLEEPER}}))
    docker.run("compose", "--project-directory", str(tmp_path), "--project-name", project, "up", "--detach")
    before = docker.containers(project)
    await fail_with(client, {"web": SLEEPER}, project, "TASK_FAILED", str(tmp_path))
    assert docker.containers(project) == before


# Time.


async def test_a_project_that_does_not_come_up_in_time(make_server: MakeServer, connect: Connect, project: str) -> None:
    client = connect(make_server(up_timeout=3))
    deployment = await client.deployment(await client.local_host(), await client.package(NEVER_UP), project)
    run = await client.play(deployment)
    assert run["status"] == "FAILED"
    assert run["reason"] in {"TIMEOUT", "UNHEALTHY"}
    assert "3 s" in run["message"]


async def test_a_health_check_that_does_not_end(impatient: Client, project: str) -> None:
    hanging = {"test": ["CMD", "sleep", "1000"], "interval": "0.2s", "timeout": "1s", "retries": 3}  # more than 2 s
    await fail_with(
        impatient, {"web": service("sleep", "1000", healthcheck=hanging)}, project, "UNHEALTHY", "web", "health check"
    )


async def test_a_container_that_is_not_decided_upon(impatient: Client, project: str, docker: Docker) -> None:
    deployment = await impatient.deployment(
        await impatient.local_host(), await impatient.package({"web": UNDECIDED}), project
    )
    run_id = await impatient.start(deployment)
    await impatient.phase(run_id, Phase.VERIFY)
    [container] = docker.containers(project)
    docker.run("pause", container)
    run = await impatient.end_of(run_id)
    assert (run["status"], run["reason"]) == ("FAILED", "UNHEALTHY"), run
    assert "web (paused)" in run["message"]


async def test_a_run_that_takes_too_long(
    make_server: MakeServer, connect: Connect, sshd: SshServer, new_project: NewProject
) -> None:
    server = make_server(run_timeout=4)
    client = connect(server)
    package = await client.package({"web": UNDECIDED})
    names = [new_project(), new_project()]
    hosts = [await client.local_host(), await client.ssh_host(sshd)]
    deployments = [await client.deployment(host, package, name) for host, name in zip(hosts, names, strict=True)]
    runs = await asyncio.gather(*(fail(client, deployment, "TIMEOUT", "longer") for deployment in deployments))
    assert [server.processes(run["id"]) for run in runs] == [{}, {}]
    assert [at_work(name) for name in names] == [{}, {}]
    assert sshd.processes() == []


def _unused() -> str:
    """A project name for a deployment that never gets to docker."""
    return f"daos-e2e-{secrets.token_hex(4)}"
