"""`kill -9` at each point of a run's way: what becomes of the run is a table in docs/operations.md.

Three cells of it by default, all of them with --all.
"""

import asyncio
import contextlib
import json
import re
import shutil
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.e2e.conftest import QUICK, NewProject, projects
from tests.support import dying
from tests.support.client import SLEEPER, UNDECIDED, Client, Json, make_well
from tests.support.docker import Docker
from tests.support.postgres import Postgres
from tests.support.requirement import SYSTEM_DIRECTORIES
from tests.support.server import Server, at_work, wait_until
from tests.support.sshd import SshServer, serve_ssh

MANUAL = Path(__file__).parents[2] / "docs" / "operations.md"
DYING = Path(dying.__file__)
ROW = re.compile(
    r"\| (?P<point>[^|]+) \| `(?P<alone>\w+)`, (?P<alone_ups>\d) \| `(?P<shared>\w+)`, (?P<shared_ups>\d) \|"
)
AT_ONCE = 3
SETTINGS = {**QUICK, "DAOS_WARM": "false", "DAOS_LEASE": "3"}
PLUGINS = [
    Path("/usr", *parts, "docker/cli-plugins/docker-compose") for parts in (("local", "lib"), ("lib",), ("libexec",))
]

# compose, but that it notes what it is asked, and waits while there is a file that says so.
COMPOSE = """#!/bin/sh
for word do
    case $word in config | build | pull | up) break ;; esac
done
echo "$word" >>"{directory}/$2-calls" 2>/dev/null
while [ -e "{directory}/$2-hold-$word" ]; do sleep 0.1; done
case $word in build | pull) exec docker tag {image} "points:$2" ;; esac
exec {plugin} "$@"
"""
HELD = {
    "in Prepare": "config",
    "in Build": "build",
    "in Pull": "pull",
    "in Up": "up",
}  # what compose is asked in the phase


@dataclass(frozen=True)
class Outcome:
    """How a run ended, and how often compose was asked to bring its project up."""

    end: str
    ups: int


def table() -> dict[tuple[str, str], Outcome]:
    """What the manual says, by point and database."""
    said = {}
    for row in ROW.finditer(MANUAL.read_text()):
        said[row["point"], "sqlite"] = Outcome(row["alone"], int(row["alone_ups"]))
        said[row["point"], "postgresql"] = Outcome(row["shared"], int(row["shared_ups"]))
    return said


FEW = (("after the claim", "sqlite"), ("in Up", "sqlite"), ("before the end is written", "postgresql"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "place" in metafunc.fixturenames:
        places = table() if metafunc.config.getoption("all") else FEW
        metafunc.parametrize("place", places, ids=" ".join)


class Site:
    """A host whose compose can be held, and the projects on it."""

    def __init__(self, directory: Path, docker: Docker, sshd: SshServer, new_project: NewProject) -> None:
        self.directory = directory
        self.docker = docker
        self.sshd = sshd
        self.new_project = new_project

    def hold(self, project: str, word: str) -> None:
        self._hold(project, word).touch()

    def release(self, project: str, word: str) -> None:
        self._hold(project, word).unlink()

    def ups(self, project: str) -> int:
        calls = self.directory / f"{project}-calls"
        return calls.read_text().split().count("up") if calls.exists() else 0

    def _hold(self, project: str, word: str) -> Path:
        return self.directory / f"{project}-hold-{word}"


@pytest.fixture(scope="module")
def site(
    tmp_path_factory: pytest.TempPathFactory, docker: Docker, sshd: SshServer, loopback_addresses: Iterator[str]
) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("site")
    program = directory / "cli-plugins" / "docker-compose"
    program.parent.mkdir()
    plugin = next(path for path in PLUGINS if path.exists())
    program.write_text(COMPOSE.format(directory=directory, image=docker.image, plugin=plugin))
    program.chmod(0o755)
    with (
        projects(docker) as new_project,
        serve_ssh(
            tmp_path_factory.mktemp("sshd"),
            next(loopback_addresses),
            path=SYSTEM_DIRECTORIES,
            environment={"DOCKER_CONFIG": str(directory)},
        ) as own_sshd,
    ):
        yield Site(directory, docker, own_sshd, new_project)


@asynccontextmanager
async def client_of(server: Server) -> AsyncIterator[Client]:
    await asyncio.to_thread(server.start)  # the others go on
    client = Client(server)
    try:
        yield client
    finally:
        await client.close()


async def run_of(client: Client, deployment: str) -> str:
    document = "query($id: ID!) { deployment(id: $id) { latestRun { id } } }"
    return str((await client.ask(document, id=deployment))["deployment"]["latestRun"]["id"])


async def killed_at(point: str, victim: Server, survivor: Server, site: Site) -> Outcome:
    """Run a deployment on `victim`, which dies at the point, and wait for the run's end on `survivor`."""
    project = site.new_project()
    service: Json = UNDECIDED if point == "in Verify" else SLEEPER
    if point in {"in Build", "in Pull"}:
        service = {**service, "image": f"points:{project}"}
    if point == "in Build":
        service = {**service, "build": {"context": ".", "dockerfile_inline": "FROM scratch"}}
    if point in HELD:
        site.hold(project, HELD[point])
    victim.command = (sys.executable, str(DYING), point)
    async with client_of(victim) as client:
        host = await client.ssh_host(site.sshd)
        deployment = await client.deployment(host, await client.package({"web": service}), project)
        with contextlib.suppress(httpx.TransportError):  # it may be dead before it has answered
            await client.start(deployment)
        assert await asyncio.to_thread(victim.wait) < 0, victim.log
    await asyncio.to_thread(wait_until, lambda: not at_work(project), "the work on the host has ended")
    if point in HELD:
        site.release(project, HELD[point])
    if point == "in Verify":
        make_well(site.docker, project)
    if survivor is not victim:
        survivor.data_dir.mkdir(parents=True)
        shutil.copy(victim.data_dir / "secret-key", survivor.data_dir)  # one keyring for all nodes
    survivor.command = (sys.executable, "-m", "daos")
    async with client_of(survivor) as client:
        run_id = await run_of(client, deployment)
        run = await client.end_of(run_id)
        assert not at_work(project), await client.words(run_id)
        assert run["status"] != "SUCCESS" or site.docker.containers(project), run
    await asyncio.to_thread(survivor.stop)
    return Outcome(run["reason"] or run["status"], site.ups(project))


@pytest.fixture(scope="module")
async def outcomes(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, site: Site, postgres: Postgres
) -> dict[tuple[str, str], Outcome]:
    """What became of a run at each point, by point and database; printed as the manual has it."""
    room = asyncio.Semaphore(AT_ONCE)
    found: dict[tuple[str, str], Outcome] = {}

    async def find(point: str, database: str) -> None:
        directory = tmp_path_factory.mktemp("server")
        async with room:
            with contextlib.ExitStack() as stack:
                settings = dict(SETTINGS)
                if database == "postgresql":
                    settings["DAOS_DATABASE_URL"] = stack.enter_context(postgres.new_database())
                victim = survivor = Server(directory / "victim", settings)
                stack.callback(victim.close)
                if database == "postgresql":
                    survivor = Server(directory / "survivor", settings)
                    stack.callback(survivor.close)
                found[point, database] = await killed_at(point, victim, survivor, site)

    everything = request.config.getoption("all")
    async with asyncio.TaskGroup() as group:
        for point, database in table() if everything else FEW:
            group.create_task(find(point, database))
    for point in dict.fromkeys(point for point, _ in table()) if everything else ():
        cells = (
            f"`{found[point, database].end}`, {found[point, database].ups}" for database in ("sqlite", "postgresql")
        )
        print(f"| {point} | {' | '.join(cells)} |")
    return found


def test_every_point_is_in_the_manual() -> None:
    source = DYING.read_text()
    points = {point for point, _ in table()}
    assert {f"in {phase}" for phase in ("Prepare", "Build", "Pull", "Up", "Verify")} < points
    assert all(json.dumps(point) in source or point.startswith("in ") for point in points)
    assert len(points) == 10


async def test_a_kill_leads_to_what_the_manual_says(
    outcomes: dict[tuple[str, str], Outcome], place: tuple[str, str]
) -> None:
    assert outcomes[place] == table()[place]
