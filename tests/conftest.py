"""Fixtures of the real things that tests use; each is skipped, or fails with DAOS_TEST_REQUIRE, where it is missing."""

import asyncio
import contextlib
import itertools
import secrets
import shutil
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import pytest
from sqlalchemy import delete, text
from xdist.remote import Producer
from xdist.scheduler import Scheduling

from db import migrations
from db.broadcast import Broadcast
from db.database import Database, sqlite_url
from db.encryption import Keyring
from db.models import Base, Installation
from tests import factories
from tests.support import chromium as chromium_support
from tests.support import docker as docker_support
from tests.support import installation, spreading
from tests.support import node as node_support
from tests.support import postgres as postgres_support
from tests.support import sshd as sshd_support
from tests.support.chromium import Chromium
from tests.support.docker import Docker
from tests.support.installation import InstalledDaos
from tests.support.node import Node
from tests.support.postgres import Postgres
from tests.support.quick import is_quick, may_have_quick
from tests.support.recording_engine import RecordingEngine
from tests.support.requirement import SYSTEM_DIRECTORIES, require
from tests.support.sshd import SshServer


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--all",
        action="store_true",
        help="cases with both transports and each compose, generated pairs, and every point to be killed at",
    )
    parser.addoption(
        "--both",
        action="store_true",
        help="whole servers on SQLite and PostgreSQL, not only on the one that tests/support/databases.py assigns",
    )
    parser.addoption(
        "--quick",
        action="store_true",
        help="tests of single modules only, without containers, browsers, sshd, and PostgreSQL",
    )


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave what `--quick` does not run unread: collecting all takes a third of its time."""
    if not config.getoption("quick"):
        return None
    return None if may_have_quick(collection_path.relative_to(config.rootpath)) else True


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("quick"):
        kept = [item for item in items if _is_quick(item)]
        config.hook.pytest_deselected(items=[item for item in items if item not in set(kept)])
        items[:] = kept


def _is_quick(item: pytest.Item) -> bool:
    assert isinstance(item, pytest.Function)
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    return is_quick(item.path.relative_to(item.config.rootpath), item.fixturenames, parameters)


@pytest.hookimpl(optionalhook=True)  # it is pytest-xdist's
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling | None:
    return spreading.make_scheduler(config, log)


class MakeSshd(Protocol):
    def __call__(self, *, path: str = SYSTEM_DIRECTORIES, options: Sequence[str] = ()) -> SshServer: ...


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """The coroutine tests and fixtures of a whole session share asyncio."""
    return "asyncio"


@pytest.fixture(scope="session")
def docker() -> Docker:
    """A Docker daemon with compose, and the image `docker.image` in it."""
    require("docker", docker_support.why_missing())
    return docker_support.make_docker()


@pytest.fixture
def project_name(docker: Docker) -> Iterator[str]:
    """A compose project name of this test's own; what bears it is removed afterwards."""
    name = f"daos-test-{secrets.token_hex(4)}"
    yield name
    docker.remove_project(name)


@pytest.fixture(scope="session")
def loopback_addresses() -> Iterator[str]:
    """Addresses of this machine that nothing else uses: 127.0.0.2 and on."""
    return (f"127.0.{number // 250}.{number % 250 + 2}" for number in itertools.count())


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory, loopback_addresses: Iterator[str]) -> Iterator[SshServer]:
    """An sshd for the whole session.  A test that stops it or changes its key makes its own: `make_sshd`."""
    require("sshd", sshd_support.why_missing())
    with sshd_support.serve_ssh(tmp_path_factory.mktemp("sshd"), next(loopback_addresses)) as server:
        yield server


@pytest.fixture
def make_sshd(tmp_path_factory: pytest.TempPathFactory, loopback_addresses: Iterator[str]) -> Iterator[MakeSshd]:
    """Starts an sshd of this test's own at each call.

    `path` is the PATH of its logins, `options` are lines of sshd_config that win over the usual ones.
    """
    require("sshd", sshd_support.why_missing())
    with contextlib.ExitStack() as servers:

        def make(*, path: str = SYSTEM_DIRECTORIES, options: Sequence[str] = ()) -> SshServer:
            directory = tmp_path_factory.mktemp("sshd")
            address = next(loopback_addresses)
            return servers.enter_context(sshd_support.serve_ssh(directory, address, path=path, options=options))

        yield make


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL cluster for the whole session."""
    require("postgresql", postgres_support.why_missing())
    with postgres_support.serve_postgres() as cluster:
        yield cluster


@pytest.fixture
def postgres_url(postgres: Postgres) -> Iterator[str]:
    """The URL of an empty PostgreSQL database of this test's own."""
    with postgres.new_database() as url:
        yield url


@pytest.fixture(scope="session")
def keyring() -> Keyring:
    """A keyring with one key, "test"."""
    return factories.keyring()


@pytest.fixture(scope="session")
async def sqlite_template(tmp_path_factory: pytest.TempPathFactory, keyring: Keyring) -> Path:
    """A migrated SQLite file, to be copied."""
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    async with factories.database(sqlite_url(path), keyring) as db:
        await migrations.upgrade(db)
    return path


@pytest.fixture(scope="session")
async def shared_sqlite_db(sqlite_template: Path, keyring: Keyring) -> AsyncIterator[Database]:
    """A migrated SQLite database that tests share, one after the other."""
    path = Path(shutil.copy(sqlite_template, sqlite_template.with_name("shared.db")))
    async with factories.database(sqlite_url(path), keyring) as db:
        yield db


@pytest.fixture(scope="session")
async def shared_postgresql_db(postgres: Postgres, keyring: Keyring) -> AsyncIterator[Database]:
    """A migrated PostgreSQL database that all tests share, one after the other."""
    with postgres.new_database() as url:
        async with factories.database(url, keyring) as db:
            await migrations.upgrade(db)
            yield db


@pytest.fixture
async def sqlite_db(shared_sqlite_db: Database) -> AsyncIterator[Database]:
    """A migrated SQLite database, emptied afterwards: a new one would have every statement compiled anew."""
    yield shared_sqlite_db
    await _empty(shared_sqlite_db)


@pytest.fixture
async def own_sqlite_db(sqlite_template: Path, tmp_path: Path, keyring: Keyring) -> AsyncIterator[Database]:
    """A migrated SQLite database in a file of this test's own: `tmp_path / "daos.db"`."""
    path = Path(shutil.copy(sqlite_template, tmp_path / "daos.db"))
    async with factories.database(sqlite_url(path), keyring) as db:
        yield db


@pytest.fixture
async def postgresql_db(shared_postgresql_db: Database) -> AsyncIterator[Database]:
    """A migrated PostgreSQL database, emptied afterwards likewise."""
    yield shared_postgresql_db
    await _empty(shared_postgresql_db)


async def _empty(db: Database) -> None:
    db.storage.note_room()
    async with asyncio.timeout(10), db.write() as session:  # a test that left a transaction open is named
        for table in reversed(Base.metadata.sorted_tables):
            if table is not Installation.__table__:  # which the migrations have made
                await session.execute(delete(table))
        if not db.is_sqlite:
            for name in ("procrastinate_jobs", "procrastinate_workers"):
                await session.execute(text(f"DELETE FROM {name}"))  # noqa: S608


@pytest.fixture(params=["sqlite", "postgresql"])
def db(request: pytest.FixtureRequest) -> Database:
    """A migrated, empty database, of each of the two engines."""
    made: Database = request.getfixturevalue(f"{request.param}_db")
    return made


@pytest.fixture(params=["sqlite", "postgresql"])
def db_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database of this test's own, of each of the two engines."""
    if request.param == "sqlite":
        return sqlite_url(tmp_path / "empty.db")
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture
def broadcast() -> Broadcast:
    return Broadcast()


@pytest.fixture
def engine() -> RecordingEngine:
    """An engine that plays nothing, and remembers what it was told."""
    return RecordingEngine()


@pytest.fixture(scope="session")
def chromium() -> Chromium:
    """The browser: `chromium.command(profile)`."""
    require("chromium", chromium_support.why_missing())
    return chromium_support.make_chromium()


@pytest.fixture(scope="session")
def node() -> Node:
    """Node.js: `await node.run(script)`."""
    require("node", node_support.why_missing())
    return node_support.make_node()


@pytest.fixture(scope="session")
def installed_daos(tmp_path_factory: pytest.TempPathFactory) -> InstalledDaos:
    """The wheel in an environment of its own; it takes half a minute, once in a session."""
    wheel = installation.build_wheel(tmp_path_factory.mktemp("wheel"))
    return installation.install(wheel, tmp_path_factory.mktemp("installed") / "environment")
