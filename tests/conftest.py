"""Fixtures of the real things that tests use; each is skipped, or fails with DAOS_TEST_REQUIRE, where it is missing."""

import contextlib
import itertools
import secrets
from collections.abc import Iterator, Sequence
from typing import Protocol

import pytest

from tests.support import chromium as chromium_support
from tests.support import docker as docker_support
from tests.support import installation
from tests.support import postgres as postgres_support
from tests.support import sshd as sshd_support
from tests.support.chromium import Chromium
from tests.support.docker import Docker
from tests.support.installation import InstalledDaos
from tests.support.postgres import Postgres
from tests.support.requirement import SYSTEM_DIRECTORIES, require
from tests.support.sshd import SshServer


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
def chromium() -> Chromium:
    """The browser: `chromium.command(profile)`."""
    require("chromium", chromium_support.why_missing())
    return chromium_support.make_chromium()


@pytest.fixture(scope="session")
def installed_daos(tmp_path_factory: pytest.TempPathFactory) -> InstalledDaos:
    """The wheel in an environment of its own; it takes half a minute, once in a session."""
    wheel = installation.build_wheel(tmp_path_factory.mktemp("wheel"))
    return installation.install(wheel, tmp_path_factory.mktemp("installed") / "environment")
