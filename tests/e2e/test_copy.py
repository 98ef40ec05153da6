"""A server moves from SQLite to PostgreSQL."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import QUICK, Connect, MakeServer
from tests.e2e.test_start import refuse
from tests.support.client import Client, Json, service
from tests.support.docker import Docker
from tests.support.server import Server

SECRET = "correct horse battery staple"
EVERYTHING = """{
    hosts { nodes { id name transport createdAt } }
    packages { nodes { id name version composeFile files { path sha256 mode onlyIfMissing text base64 } createdAt } }
    deployments { totalCount nodes { id status variables { name value secret } createdAt updatedAt latestRun {
        id number status message progress queuedAt startedAt finishedAt warnings containers { name service image state }
        log(first: 100) { nodes { sequence at level phase message } } } } }
}"""


@pytest.fixture
def server(make_server: MakeServer) -> Server:
    return make_server(database_url="")  # SQLite, whatever the others have


@pytest.fixture
def moved(server: Server, postgres_url: str) -> Iterator[Server]:
    """The same server, not yet started, on PostgreSQL."""
    settings = {**QUICK, "DAOS_WARM": "false", "DAOS_DATABASE_URL": postgres_url}
    moved = Server(server.directory, settings)
    yield moved
    moved.close()


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with an empty database and no server."""
    path = tmp_path_factory.mktemp("data")
    daos("migrate", DAOS_DATA_DIR=str(path))
    return path


def daos(*arguments: str, **environment: str) -> str:
    """All that the command says."""
    done = subprocess.run(
        [sys.executable, "-m", "daos", *arguments],
        env={"PATH": os.environ["PATH"], **environment},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def password(url: str) -> str:
    return url.partition("//")[2].partition("@")[0].partition(":")[2]


async def fill(client: Client, project: str) -> str:
    """Deploy something with a secret, and give the deployment's id."""
    package = await client.package(
        {"web": service("sleep", "1000", environment=["TOKEN"])}, files={"a.txt": "content\n"}
    )
    variables: list[Json] = [{"name": "TOKEN", "value": SECRET, "secret": True}]
    deployment = await client.deployment(await client.local_host(), package, project, variables)
    run = await client.play(deployment)
    assert run["status"] == "SUCCESS", await client.words(run["id"])
    return deployment


async def test_what_was_made_on_sqlite_is_there_on_postgresql(
    server: Server, moved: Server, connect: Connect, project: str, docker: Docker, postgres_url: str
) -> None:
    client = connect(server)
    deployment = await fill(client, project)
    before, token = await client.ask(EVERYTHING), server.token
    assert server.stop() == 0
    said = daos("copy", "--to", postgres_url, DAOS_DATA_DIR=str(server.data_dir))
    assert "deployments: 1 rows" in said
    assert "DAOS_DATABASE_URL" in said
    assert password(postgres_url) not in said

    (server.data_dir / "daos.db").rename(server.data_dir / "aside.db")
    moved.start()
    assert moved.token == token
    client = connect(moved)
    assert await client.ask(EVERYTHING) == before

    for container in docker.containers(project):
        docker.run("container", "rm", "--force", container)
    run = await client.play(deployment)
    assert (run["status"], run["number"]) == ("SUCCESS", 2), await client.words(run["id"])
    [container] = docker.containers(project)
    assert f"TOKEN={SECRET}" in docker.run("inspect", "--format", "{{json .Config.Env}}", container)
    assert not (moved.data_dir / "daos.db").exists()


def test_a_running_server_is_not_copied(server: Server, postgres_url: str) -> None:
    line = refuse("copy", "--to", postgres_url, DAOS_DATA_DIR=str(server.data_dir))
    assert line == "daos: a daos serves the SQLite database; stop it first"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user:hunter2@127.0.0.1:1/none",
        "postgresql://user@127.0.0.1:1/none?password=hunter2",
        "postgresql://user:hun@hunter2@127.0.0.1:1/none",
        "postgresql://user:hunter2@127.0.0.1:port/none",
        "mysql://user:hunter2@127.0.0.1/none",
        "sqlite://user:hunter2@/none",
    ],
)
def test_a_password_is_not_shown_where_it_fails(data_dir: Path, url: str) -> None:
    assert "hunter2" not in refuse("copy", "--to", url, DAOS_DATA_DIR=str(data_dir))


def test_a_wrong_password_is_not_shown(data_dir: Path, postgres_url: str) -> None:
    url = postgres_url.replace(password(postgres_url), "hunter2")
    line = refuse("copy", "--to", url, DAOS_DATA_DIR=str(data_dir))
    assert "password authentication failed" in line
    assert "hunter2" not in line


def test_the_password_can_be_in_a_file(data_dir: Path, postgres_url: str, tmp_path: Path) -> None:
    secret = password(postgres_url)
    file = tmp_path / "pgpass"
    file.touch(mode=0o600)
    file.write_text(f"*:*:*:*:{secret}\n")
    url = postgres_url.replace(f":{secret}@", "@")
    said = daos("copy", "--to", url, DAOS_DATA_DIR=str(data_dir), PGPASSFILE=str(file))
    assert "All rows are copied" in said
