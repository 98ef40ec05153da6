"""A new key for secrets while a server serves and plays."""

import asyncio
import hashlib
import os
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from db.phase import Phase
from tests.e2e.conftest import Connect, MakeServer, NewProject
from tests.e2e.test_copy import daos
from tests.e2e.test_start import refuse
from tests.support.client import UNDECIDED, Client, Json, make_well, service
from tests.support.docker import Docker
from tests.support.server import Server

SECRET = "correct horse battery staple"
LONG_AGO = 1_000_000_000  # seconds since 1970


@pytest.fixture(params=["sqlite", "postgresql"])
def servers(request: pytest.FixtureRequest, make_server: MakeServer, tmp_path: Path) -> list[Server]:
    """All nodes on one database, with one file of keys."""
    keys = tmp_path / "keys"
    keys.write_text(f"first {Fernet.generate_key().decode()}\n")
    if request.param == "sqlite":
        return [make_server(secret_key_file=keys)]
    url = request.getfixturevalue("postgres_url")
    return [make_server(secret_key_file=keys, database_url=url) for _ in range(2)]


def command(server: Server, *arguments: str) -> str:
    """What `daos` says, with the server's settings."""
    return daos(*arguments, **_environment(server))


def _environment(server: Server) -> dict[str, str]:
    return {**server.settings, "DAOS_DATA_DIR": str(server.data_dir), "DAOS_LOG_LEVEL": "warning"}


def keeping(secret: str) -> Json:
    """A service that goes on only where its variable TOKEN is `secret`, which its compose file does not tell."""
    digest = hashlib.sha256(secret.encode()).hexdigest()
    test = f'[ "$$(printf %s "$$TOKEN" | sha256sum | cut -c1-64)" = {digest} ] && exec sleep 1000'
    return service("sh", "-c", test, environment=["TOKEN"])


async def deployment_of(client: Client, host: str, project: str, secret: str = SECRET, **more: Json) -> str:
    package = await client.package({"web": keeping(secret), **more})
    variables: list[Json] = [{"name": "TOKEN", "value": secret, "secret": True}]
    return await client.deployment(host, package, project, variables)


async def test_runs_find_their_secrets_before_during_and_after_a_rotation(
    servers: list[Server], connect: Connect, new_project: NewProject, docker: Docker, tmp_path: Path
) -> None:
    clients = [connect(server) for server in servers]
    client, other = clients[0], clients[-1]
    host, project = await client.local_host(), new_project()
    deployment = await deployment_of(client, host, new_project())
    assert (await client.play(deployment))["status"] == "SUCCESS"

    during = await client.start(await deployment_of(client, host, project, slow=UNDECIDED))
    await client.phase(during, Phase.VERIFY)
    playing = asyncio.create_task(client.play(deployment))
    said = await asyncio.to_thread(command, servers[0], "secrets", "rotate")
    assert "2 secrets were re-encrypted." in said
    make_well(docker, project)
    assert [run["status"] for run in (await client.end_of(during), await playing)] == ["SUCCESS"] * 2

    for node in clients:
        run = await node.play(deployment)
        assert run["status"] == "SUCCESS", await node.words(run["id"])
    # Made after it by each node: with the new key, or the old one could not be retired.
    later = [await deployment_of(node, host, new_project(), f"{SECRET} {at}") for at, node in enumerate(clients)]
    assert "the keys were just changed" in refuse("secrets", "retire", **_environment(servers[0]))
    os.utime(tmp_path / "keys", (LONG_AGO, LONG_AGO))
    assert "Retired: first." in command(servers[0], "secrets", "retire")
    for deployment_id in (deployment, *later):
        run = await other.play(deployment_id)
        assert run["status"] == "SUCCESS", await other.words(run["id"])
    assert [key.split()[0] for key in _lines(tmp_path / "keys")] == [_new_key(said)]


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def _new_key(said: str) -> str:
    """The id that the rotation has named."""
    return said.partition("The new key is ")[2].partition(".")[0]
