"""Servers, clients, and projects that are removed afterwards."""

import contextlib
import secrets
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import pytest

from tests.support import compose_versions, databases
from tests.support import sshd as sshd_support
from tests.support.client import Client
from tests.support.docker import Docker, make_hello
from tests.support.postgres import Postgres
from tests.support.requirement import require
from tests.support.server import Server
from tests.support.site import Site, serve_site
from tests.support.sshd import SshServer

QUICK = {"DAOS_SETTLE_SECONDS": "0.5", "DAOS_VERIFY_TIMEOUT": "90"}


# What is said of a server that has its database to itself; tests/e2e/test_workers.py has what others do instead.
ALONE = pytest.mark.usefixtures("alone")


class MakeServer(Protocol):
    def __call__(self, **settings: object) -> Server: ...


NewProject = Callable[[], str]
NewSite = Callable[[str, Mapping[str, str]], Site]
Connect = Callable[[Server], Client]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.config.getoption("both") and "database" in metafunc.fixturenames:
        path = Path(metafunc.module.__file__)
        metafunc.parametrize("database", databases.for_both(path), indirect=True, scope="module")


@pytest.fixture(scope="module")
def database(request: pytest.FixtureRequest) -> str:
    """The engine of the file's servers: see tests/support/databases.py."""
    chosen: str = getattr(request, "param", databases.of_file(request.path))
    return chosen


@pytest.fixture
def alone(database: str) -> None:
    if database == databases.POSTGRESQL:
        pytest.skip("with PostgreSQL another node goes on with the run")


@pytest.fixture(scope="module")
def of_a_database(request: pytest.FixtureRequest, database: str) -> Iterator[Callable[[], dict[str, str]]]:
    """Settings of a new database: SQLite in the data directory, or one of PostgreSQL."""
    if database == databases.SQLITE:
        yield dict
        return
    postgres: Postgres = request.getfixturevalue("postgres")
    with contextlib.ExitStack() as made:
        yield lambda: {"DAOS_DATABASE_URL": made.enter_context(postgres.new_database())}


@contextmanager
def _shared(directory: Path, **settings: str) -> Iterator[Server]:
    server = Server(directory, {**QUICK, **settings})
    server.start()
    yield server
    server.close()


@pytest.fixture(scope="session")
def sqlite_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The shared server over SQLite."""
    with _shared(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture(scope="session")
def postgresql_server(tmp_path_factory: pytest.TempPathFactory, postgres: Postgres) -> Iterator[Server]:
    """The shared server over PostgreSQL."""
    with postgres.new_database() as url, _shared(tmp_path_factory.mktemp("server"), DAOS_DATABASE_URL=url) as server:
        yield server


@pytest.fixture(scope="module")
def server(request: pytest.FixtureRequest, database: str) -> Server:
    """A server for all tests that leave it as it is."""
    shared: Server = request.getfixturevalue(f"{database}_server")
    return shared


@pytest.fixture
def make_server(
    tmp_path_factory: pytest.TempPathFactory, of_a_database: Callable[[], dict[str, str]]
) -> Iterator[MakeServer]:
    """Starts a server of this test's own at each call: `make_server(up_timeout=2)` sets DAOS_UP_TIMEOUT.

    It does not keep Ansible loaded unless it is told to: most of these servers play one run.
    """
    with contextlib.ExitStack() as servers:

        def make(**settings: object) -> Server:
            own = {f"DAOS_{name.upper()}": str(value) for name, value in settings.items()}
            usual = {**QUICK, "DAOS_WARM": "false", **of_a_database()}
            server = Server(tmp_path_factory.mktemp("server"), {**usual, **own})
            servers.callback(server.close)
            server.start()
            return server

        yield make


@pytest.fixture
async def client(server: Server) -> AsyncIterator[Client]:
    """A client of the shared server."""
    client = Client(server)
    yield client
    await client.close()


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """Makes clients of other servers."""
    clients = []

    def make(server: Server) -> Client:
        clients.append(Client(server))
        return clients[-1]

    yield make
    for client in clients:
        await client.close()


@contextmanager
def projects(docker: Docker) -> Iterator[NewProject]:
    """Gives compose project names; what bears them is removed afterwards."""
    names: list[str] = []

    def make() -> str:
        names.append(f"daos-e2e-{secrets.token_hex(4)}")
        return names[-1]

    yield make
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(docker.remove_project, names))


@pytest.fixture
def new_project(docker: Docker) -> Iterator[NewProject]:
    """Gives compose project names; what bears them is removed afterwards."""
    with projects(docker) as new_project:
        yield new_project


@pytest.fixture
def project(new_project: NewProject) -> str:
    """One compose project name."""
    return new_project()


@pytest.fixture(scope="session")
def registry() -> Iterator[str]:
    """The address of a registry that accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as silent:
        yield f"127.0.0.1:{silent.getsockname()[1]}"


@pytest.fixture(params=["LOCAL", "SSH"])
async def host(request: pytest.FixtureRequest, client: Client) -> str:
    """This machine as a host, by each of the two connections."""
    if request.param == "LOCAL":
        return await client.local_host()
    sshd: SshServer = request.getfixturevalue("sshd")
    return await client.ssh_host(sshd)


@pytest.fixture(scope="session")
def hello(docker: Docker) -> None:
    """The image hello:1, which is the only one that cases and generated packages name."""
    make_hello()


@pytest.fixture(scope="session")
def new_site(
    tmp_path_factory: pytest.TempPathFactory, loopback_addresses: Iterator[str], docker: Docker
) -> Iterator[NewSite]:
    """Gives a site with one compose and these settings; cases of the same ones share it."""
    require("sshd", sshd_support.why_missing())
    made: dict[tuple[str, frozenset[tuple[str, str]]], Site] = {}
    with contextlib.ExitStack() as sites:

        def give(compose: str, settings: Mapping[str, str]) -> Site:
            key = compose, frozenset(settings.items())
            if key not in made:
                if compose == "newest":
                    require("compose-newest", compose_versions.why_missing())
                directory = tmp_path_factory.mktemp("site")
                made[key] = sites.enter_context(serve_site(directory, next(loopback_addresses), compose, settings))
            return made[key]

        yield give
