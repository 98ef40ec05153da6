"""A server whose database is PostgreSQL."""

from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from db.phase import Phase
from tests.e2e.conftest import Connect, MakeServer, NewProject
from tests.support.client import ONCE, UNDECIDED, Json, make_well, service
from tests.support.docker import Docker
from tests.support.server import Server
from tests.support.sshd import SshServer


@pytest.fixture
def server(make_server: MakeServer, postgres_url: str) -> Server:
    return make_server(database_url=postgres_url)


async def test_a_deployment_runs_to_success(server: Server, connect: Connect, sshd: SshServer, project: str) -> None:
    client = connect(server)
    package = await client.package({"once": ONCE})
    deployment = await client.deployment(await client.ssh_host(sshd), package, project)
    document = "subscription($id: ID!) { deploymentStatus(id: $id) { status } }"
    async with client.subscribe(document, id=deployment) as events:
        seen = [(await anext(events))["deploymentStatus"]["status"]]
        run = await client.play(deployment)
        seen += [(await anext(events))["deploymentStatus"]["status"] for _ in range(2)]
    assert seen == ["PENDING", "RUNNING", "SUCCESS"]
    log = await client.log(run["id"])
    assert [entry["sequence"] for entry in log] == list(range(1, len(log) + 1))
    assert not (server.data_dir / "daos.db").exists()


async def test_after_a_kill_the_next_server_settles_the_run(
    server: Server, connect: Connect, new_project: NewProject, docker: Docker
) -> None:
    client = connect(server)
    project = new_project()
    package = await client.package({"web": UNDECIDED})
    run_id = await client.start(await client.deployment(await client.local_host(), package, project))
    await client.phase(run_id, Phase.VERIFY)
    server.kill()
    make_well(docker, project)
    server.start()
    run = await client.end_of(run_id)
    assert (run["status"], run["reason"]) == ("SUCCESS", None), await client.words(run_id)


async def test_a_server_elsewhere_with_the_same_keys_reads_the_secrets(
    make_server: MakeServer, connect: Connect, project: str, docker: Docker, postgres_url: str, tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"shared {Fernet.generate_key().decode()}\n")
    first = make_server(database_url=postgres_url, secret_key_file=keys)
    client = connect(first)
    package = await client.package({"web": service("sleep", "1000", environment=["TOKEN"])})
    secret: Json = {"name": "TOKEN", "value": "hunter2", "secret": True}
    deployment = await client.deployment(await client.local_host(), package, project, [secret])
    assert first.stop() == 0
    client = connect(make_server(database_url=postgres_url, secret_key_file=keys))
    run = await client.play(deployment)
    assert run["status"] == "SUCCESS", await client.words(run["id"])
    [container] = docker.containers(project)
    assert "TOKEN=hunter2" in docker.run("inspect", "--format", "{{json .Config.Env}}", container)
