"""The cases of tests/cases on the real server: a new folder is a new test.

Each case is run once, on one of the two transports; with --all on both, with each compose.
"""

import fcntl
import os
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.e2e.conftest import Connect, NewProject, NewSite
from tests.support import compose_versions
from tests.support.cases import (
    CASES,
    ON_A_DEPLOYMENT,
    Case,
    Package,
    Step,
    case_names,
    read_case,
    run_command,
    services_word,
)
from tests.support.client import Client, Json, Refused
from tests.support.compose_versions import COMPOSES
from tests.support.docker import Docker
from tests.support.site import TRANSPORTS, Site

PATIENCE = 300.0  # seconds for a run: a case may have to wait for its container


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case_name" in metafunc.fixturenames:
        ways = list(_ways(all_ways=metafunc.config.getoption("all")))
        metafunc.parametrize(("case_name", "transport", "compose"), ways, ids=[":".join(way) for way in ways])


def _ways(*, all_ways: bool) -> Iterator[tuple[str, str, str]]:
    for name in case_names():
        if all_ways:
            yield from ((name, transport, compose) for transport in TRANSPORTS for compose in COMPOSES)
        else:
            # By the name, so that a new folder changes nothing for the others.
            yield name, TRANSPORTS[zlib.crc32(name.encode()) % 2], "installed"


@pytest.fixture
def lone_case(case_name: str) -> Iterator[None]:
    """Keeps other runs of the tests from this case: it names images and containers that the machine has once."""
    path = Path(tempfile.gettempdir(), f"daos-case-{case_name}.lock")
    with path.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@dataclass
class Played:
    """A case that is being played: what there is by now, and what its commands know of it."""

    case: Case
    client: Client
    host: str
    site: Site
    new_project: NewProject
    variables: dict[str, str]  # of the commands
    deployment: str | None = None
    message: str = ""
    values: Sequence[Mapping[str, object]] = field(default_factory=list)  # the deployment's variables

    async def play(self, step: Step) -> str:
        """Do what the step says, and give its result."""
        try:
            if step.how not in ON_A_DEPLOYMENT:
                await self._deploy(step)
            assert self.deployment is not None
            run = await self._run("DOWN" if step.how == "down" else "UP")
        except Refused as refused:
            self.message = str(refused)
            self.deployment = None
            return f"refused:{_first_code(refused.error)}"
        return "SUCCESS" if run["status"] == "SUCCESS" else f"{run['status']}:{run['reason']}"

    async def _deploy(self, step: Step) -> None:
        if step.how == "other project":
            self.variables["FIRST_PROJECT"] = self.variables["PROJECT"]
        if step.how in {"", "other project"}:
            project = self.new_project()
            self.variables |= {"PROJECT": project, "DIR": str(self.site.root / project)}
        elif self.deployment is not None:
            await self.client.change("deleteDeployment", "deletedDeploymentId", deploymentId=self.deployment)
        self.deployment = None
        if step.how == "":
            self.values = self.case.variables
        elif step.variables is not None or step.how == "same package":
            self.values = step.variables or []
        package = self.case.then if step.how == "new package" else self.case.package
        assert package is not None
        package_id = await _create_package(self.client, package)
        self.deployment = await self.client.deployment(self.host, package_id, self.variables["PROJECT"], self.values)

    async def _run(self, action: str) -> Json:
        assert self.deployment is not None
        run_id = await self.client.start(self.deployment, action)
        await self.client.end_of(run_id, PATIENCE)
        document = "query($id: ID!) { run(id: $id) { status reason message containers { service state health } } }"
        run: Json = (await self.client.ask(document, id=run_id))["run"]
        self.variables["SERVICES"] = services_word(run["containers"])
        self.message = f"{run['message']}\n{await self.client.words(run_id)}"
        return run


async def _create_package(client: Client, package: Package) -> str:
    values = {"name": f"case {os.urandom(8).hex()}", "version": "1"}
    payload = await client.change(
        "createPackage", "package { id }", **values, composeFile=package.compose_file, files=package.files
    )
    return str(payload["package"]["id"])


def _first_code(error: Json) -> str:
    problems = error["extensions"].get("problems") or [error["extensions"]]
    return str(problems[0]["code"])


def _run_all(commands: Sequence[str], variables: Mapping[str, str]) -> None:
    for command in commands:
        failure = run_command(command, variables)
        assert failure is None, f"{command}: {failure}"


@pytest.mark.usefixtures("hello")
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_runs_of_a_site_use_its_compose(
    request: pytest.FixtureRequest,
    transport: str,
    new_site: NewSite,
    connect: Connect,
    docker: Docker,
    project: str,
) -> None:
    for compose in COMPOSES if request.config.getoption("all") else COMPOSES[:1]:
        site = new_site(compose, {})
        client = connect(site.server)
        host = await site.new_host(client, transport)
        services = {"web": {"image": "hello:1", "init": True, "network_mode": "none", "command": "sleep 1000"}}
        deployment = await client.deployment(host, await client.package(services), project)
        run = await client.play(deployment)
        assert run["status"] == "SUCCESS", await client.words(run["id"])
        [container] = docker.containers(project)
        label = docker.run("inspect", "--format", '{{index .Config.Labels "com.docker.compose.version"}}', container)
        assert label.strip()
        # Debian's compose leaves its own revision out of the label.
        assert compose_versions.version(site.home).startswith(label.strip())
        assert (site.root / project / "compose.yaml").exists()
        docker.remove_project(project)


@pytest.mark.usefixtures("hello", "lone_case")
async def test_case(
    case_name: str,
    transport: str,
    compose: str,
    new_site: NewSite,
    connect: Connect,
    docker: Docker,
    new_project: NewProject,
    tmp_path: Path,
) -> None:
    case = read_case(CASES / case_name)
    site = new_site(compose, case.server)
    client = connect(site.server)
    host = await site.new_host(client, transport)
    projects: list[str] = []

    def next_project() -> str:
        projects.append(new_project())
        return projects[-1]

    played = Played(
        case, client, host, site, next_project, {"ROOT": str(site.root), "KEEP": str(tmp_path), "SERVICES": ""}
    )
    _run_all(case.before, played.variables)
    try:
        for number, step in enumerate(case.steps):
            if played.deployment is None and step.how in ON_A_DEPLOYMENT:
                break  # it was refused, as it may be: there is nothing to run again or to take down
            _run_all(step.between, played.variables)
            result = await played.play(step)
            where = f"{case.what}\nstep {number} {step.how}: {result}, and correct is {' or '.join(step.expect)}"
            assert result in step.expect, f"{where}\n{played.message}"
            if not result.startswith("refused:"):
                failed = [(check, run_command(check.command, played.variables)) for check in step.checks]
                wrong = [f"not true: {check.description}: {words}" for check, words in failed if words is not None]
                assert wrong == [], f"{where}\n{wrong}\n{played.message}"
    finally:
        for project in projects:
            docker.remove_project(project)
        for command in case.after:
            run_command(command, played.variables)  # where there is nothing to clean up, that is well too
