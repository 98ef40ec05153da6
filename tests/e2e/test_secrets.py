"""Secrets go through runs that end in every way, and are found nowhere but where docs/security.md says."""

import asyncio
import base64
import json
import pwd
import secrets
import tempfile
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from os import getuid
from pathlib import Path

import httpx
import pytest

from db.phase import Phase
from tests.e2e.conftest import QUICK, NewProject, projects
from tests.support.canaries import Watched, files_below, holding, leaking, parts, watching
from tests.support.client import UNDECIDED, Client, Json, service
from tests.support.database import stored_key
from tests.support.docker import Docker
from tests.support.keys import make_key
from tests.support.registry import Registry, serve_registry
from tests.support.server import Server, wait_until
from tests.support.sshd import SshServer

TRANSPORTS = ["LOCAL", "SSH"]
EVERYTHING = """query($id: ID!) { deployment(id: $id) {
    status variables { name value secret } logs(first: 100) { nodes { message } }
    latestRun {
        message warnings containers { name service image state ports } log(first: 100) { nodes { message phase } }
    }
    package { composeFile files { text base64 } registryLogins { registry username } } } }"""
LISTS = """{ viewer { name role } tokens(first: 100) { nodes { id name role hostLabels } }
    newest: auditLog(first: 100) { nodes { principal address mutation objectIds outcome } }
    oldest: auditLog(last: 100) { nodes { principal address mutation objectIds outcome } }
    sshKeys(first: 100) { nodes { name publicKey fingerprint } }
    hosts(first: 100) { nodes { name sshKeyPath hostKeyFingerprint pinnedKeys { fingerprint } } } }"""

CREATE_SSH_KEY = "mutation($input: CreateSshKeyInput!) { createSshKey(input: $input) { sshKey { id publicKey } } }"

# What a project does with the variables, and how its run ends.
WAYS: dict[str, tuple[Json, str]] = {
    "printed": (service("sh", "-c", "echo told: $$TOKEN; sleep 1000"), "SUCCESS"),
    "printed-and-ended": (service("sh", "-c", "echo told: $$TOKEN; exit 3"), "FAILED"),
    "lines-printed": (service("sh", "-c", 'printf "%s\\n" "$$KEY"; exit 3'), "FAILED"),
    "refused": ({"image": "demo:1", "ports": ["${TOKEN}"]}, "FAILED"),
    "quotes-refused": ({"image": "demo:1", "ports": ["${QUOTED}"]}, "FAILED"),
    "lines-refused": ({"image": "demo:1", "deploy": {"replicas": "${KEY}"}}, "FAILED"),
    "pulled": ({"image": "${REGISTRY}/team/${PROJECT}:1"}, "FAILED"),
}
# The image of a container is shown to everybody on its host, by docker itself.
IMAGES: dict[str, tuple[Json, str]] = {
    "image": ({"image": "registry.invalid/${TOKEN}:1"}, "FAILED"),
    "quotes-image": ({"image": "registry.invalid/x:${QUOTED}"}, "FAILED"),
}
# What is cut off, in pull and while the container is waited for: by a cancel, and by a server that dies.
CUT_OFF: dict[str, tuple[Json, str]] = {
    "canceled-in-pull": ({"image": "${REGISTRY}/team/${PROJECT}:1"}, "FAILED"),
    "canceled": (UNDECIDED, "FAILED"),
    "killed-in-pull": ({"image": "${REGISTRY}/team/${PROJECT}:1"}, "FAILED"),
    "killed": (UNDECIDED, "FAILED"),
}
# Again, with an Ansible that says all that it does.
VERBOSE = {f"{way}-verbosely": WAYS[way] for way in ("printed-and-ended", "lines-refused", "pulled")}
ALL = WAYS | IMAGES | CUT_OFF | VERBOSE
ROBOT = "robot"


@dataclass(frozen=True)
class Canaries:
    """What goes through all runs."""

    core: str = field(default_factory=lambda: f"x{secrets.token_hex(8)}")
    line: str = field(default_factory=lambda: f"x{secrets.token_hex(8)}")
    quoted: str = field(default_factory=lambda: f"x{secrets.token_hex(8)}")
    password: str = field(default_factory=lambda: f"x{secrets.token_hex(8)}")
    passphrase: str = field(default_factory=lambda: f"x{secrets.token_hex(8)}")

    @property
    def variables(self) -> list[Json]:
        return [
            {"name": "TOKEN", "value": self.core, "secret": True},
            {"name": "KEY", "value": f"-----BEGIN\n{self.line}\n-----END\n", "secret": True},
            {"name": "QUOTED", "value": f'a"b\\{self.quoted}\'c"', "secret": True},
        ]

    @property
    def of_containers(self) -> tuple[str, ...]:
        """Those that a container is given."""
        return self.core, self.line, self.quoted


@dataclass(frozen=True)
class Told:
    """All that was said and written down while runs with secrets were played."""

    canaries: Canaries
    needles: tuple[str, ...]  # all there are
    key: tuple[str, ...]  # parts of the private key, and its passphrase
    refusals: list[str]  # what the API answered to keys that it did not take
    answers: dict[tuple[str, str], tuple[str, str]]  # of the API after each run, and the run's status
    lists: str  # what else the API tells, and /metrics
    log: str  # the server's
    files: list[Path]  # the server's own, those of its runs, and what is on the host
    leaking: dict[Path, set[str]]  # of these, those with a secret in them
    containers: str  # as docker shows them, without the environment that they are given
    watched: set[Watched]  # command lines and environments with a secret in them
    pulled_by: set[str | None]


class Story:
    """Deploys projects with the canaries, and keeps what they were."""

    def __init__(self, client: Client, canaries: Canaries, registry: Registry, new_project: NewProject) -> None:
        self.client, self.canaries, self.registry = client, canaries, registry
        self.hosts: dict[str, str] = {}  # ids by transport
        self.projects: dict[tuple[str, str], str] = {}
        self.deployments: dict[tuple[str, str], str] = {}  # ids by transport and way
        self._new_project = new_project

    async def start(self, ways: Iterable[str]) -> dict[tuple[str, str], str]:
        """Start a run of each way on each host; their ids."""
        places = [(transport, way) for way in ways for transport in self.hosts]
        for place in places:
            transport, way = place
            self.projects[place] = self._new_project()
            text = json.dumps({"services": {"web": {"environment": ["TOKEN", "KEY"], **ALL[way][0]}}})
            package = await self.client.package(
                text.replace("${REGISTRY}", self.registry.address).replace("${PROJECT}", self.projects[place]),
                logins=[{"registry": self.registry.address, "username": ROBOT, "password": self.canaries.password}],
            )
            self.deployments[place] = await self.client.deployment(
                self.hosts[transport], package, self.projects[place], self.canaries.variables
            )
        return {place: await self.client.start(self.deployments[place]) for place in places}

    async def play(self, ways: Iterable[str]) -> None:
        await asyncio.gather(*map(self.client.end_of, (await self.start(ways)).values()))

    async def start_and_wait(self, waiting: str, pulling: str) -> list[str]:
        """Start runs, and return when they wait for the container or for the registry; their ids."""
        self.registry.hold()
        runs = await self.start([waiting, pulling])
        for (_, way), run in runs.items():
            await self.client.phase(run, Phase.PULL if way == pulling else Phase.VERIFY)
        images = {f"/v2/team/{self.projects[transport, pulling]}/manifests/1" for transport in self.hosts}
        await asyncio.to_thread(wait_until, lambda: images <= self.registry.held, "images are asked for", 60)
        return list(runs.values())

    async def answers(self) -> dict[tuple[str, str], tuple[str, str]]:
        """What the API tells of each deployment, and its status."""
        return {
            place: ((await self.client.post(EVERYTHING, {"id": deployment})).text, await self.client.status(deployment))
            for place, deployment in self.deployments.items()
        }

    async def cancel(self, runs: Iterable[str]) -> None:
        for run in runs:
            await self.client.cancel(run)
        await asyncio.gather(*map(self.client.end_of, runs))
        self.registry.release()


@pytest.fixture(scope="module")
async def told(tmp_path_factory: pytest.TempPathFactory, docker: Docker, sshd: SshServer) -> AsyncIterator[Told]:
    """What a talkative server tells of a run in each of the ways, on both connections; by SSH with a kept key."""
    began = time.time()
    canaries = Canaries()
    given = make_key(tmp_path_factory.mktemp("key") / "key", passphrase=canaries.passphrase).read_text()
    settings = {**QUICK, "DAOS_LOG_LEVEL": "debug"}
    server = Server(tmp_path_factory.mktemp("server"), settings)
    with serve_registry(ROBOT, canaries.password) as registry, projects(docker) as new_project:
        server.start()
        client = Client(server)
        try:
            token = await new_token(client)
            server.token = token
            story = Story(client, canaries, registry, new_project)
            server.wait_until_warm()
            kept = await client.ssh_key(privateKey=given, passphrase=canaries.passphrase)
            sshd.authorize(kept["publicKey"])
            by_key = await client.ssh_host(sshd, sshKeyPath=None, sshKeyId=kept["id"])
            story.hosts = {"LOCAL": await client.local_host(), "SSH": by_key}
            key = (canaries.passphrase, *parts(given), *parts(stored_key(server)))
            refusals = await refused(client, given, canaries.passphrase)
            needles = (*canaries.of_containers, canaries.password, token, *key)

            await story.play(IMAGES)
            with watching(*needles) as watched:
                await story.play(WAYS)
                await story.cancel(await story.start_and_wait("canceled", "canceled-in-pull"))
                cut_off = await story.start_and_wait("killed", "killed-in-pull")
                server.kill()
                settings["DAOS_ANSIBLE_VERBOSITY"] = "3"
                server.start()
                server.token = token
                await story.cancel(cut_off)
                await story.play(VERBOSE)

            answers = await story.answers()
            lists = (await client.post(LISTS)).text + (await asyncio.to_thread(httpx.get, f"{server.url}/metrics")).text
            files = list(places(server, sshd, began))
            yield Told(
                canaries=canaries,
                needles=needles,
                key=key,
                refusals=refusals,
                answers=answers,
                lists=lists,
                log=server.log,
                files=files,
                leaking=leaking(files, needles),
                containers=shown(docker, list(story.projects.values())),
                watched=watched,
                pulled_by=registry.pulled_by,
            )
        finally:
            await client.close()
            server.close()


async def new_token(client: Client) -> str:
    """The text of a new admin's token."""
    payload = await client.change("createToken", "secret", name=f"canary {secrets.token_hex(4)}", role="ADMIN")
    return str(payload["secret"])


async def refused(client: Client, given: str, passphrase: str) -> list[str]:
    """The answers to keys that cannot be taken over."""
    return [
        (await client.post(CREATE_SSH_KEY, {"input": {"name": "x"} | wrong})).text
        for wrong in (
            {"privateKey": given, "passphrase": f"{passphrase}!"},
            {"privateKey": given},
            {"privateKey": given[:-40], "passphrase": passphrase},
            {"passphrase": passphrase},
            {"privateKey": [given], "passphrase": [passphrase]},
            {"name": None, "privateKey": given, "passphrase": passphrase},
            {"private_key": given, "passphrase": passphrase},
        )
    ]


def home() -> Path:
    """Of the login on the host, which is this machine."""
    return Path(pwd.getpwuid(getuid()).pw_dir)


def is_newer(path: Path, began: float) -> bool:
    """Whether a file has changed since then; False if it has gone meanwhile, as what runc writes there goes."""
    try:
        return path.lstat().st_ctime >= began
    except FileNotFoundError:
        return False


def places(server: Server, sshd: SshServer, began: float) -> Iterator[Path]:
    """The files of the server and its runs, and of the host what runs, ssh and docker write and what is temporary."""
    temporary = [
        path
        for directory in (Path(tempfile.gettempdir()), Path("/var/tmp"), Path("/dev/shm"))
        for path in directory.iterdir()
        if not path.name.startswith("pytest-of-") and is_newer(path, began)
    ]
    hosts = [home() / name for name in (".daos", ".docker", ".ansible", ".ssh")]
    of_runs = server.run_root.parent.glob(f"{server.run_root.name}*")
    return files_below(server.directory, sshd.directory, *of_runs, *hosts, *temporary)


def shown(docker: Docker, names: Sequence[str]) -> str:
    """How docker shows the projects' containers, but for the environment that compose has to give them."""
    containers = [container for name in names for container in docker.containers(name)]
    inspected = json.loads(docker.run("container", "inspect", *containers))
    for container in inspected:
        del container["Config"]["Env"]
    return json.dumps(inspected)


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("way", [*ALL])
async def test_no_answer_tells_a_secret(told: Told, transport: str, way: str) -> None:
    answer, status = told.answers[transport, way]
    assert status == ALL[way][1], answer
    assert holding(answer.encode(), told.needles) == set()


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("way", ["printed-and-ended", "lines-printed", "printed-and-ended-verbosely"])
async def test_the_words_around_a_secret_are_told(told: Told, transport: str, way: str) -> None:
    assert "********" in told.answers[transport, way][0]


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_verbose_ansible_says_what_it_does(told: Told, transport: str) -> None:
    words = "ansible.cfg as config file"
    assert words in told.answers[transport, "printed-and-ended-verbosely"][0]
    assert words not in told.answers[transport, "printed-and-ended"][0]


async def test_nothing_else_that_is_asked_for_tells_a_secret(told: Told) -> None:
    assert '"errors"' not in told.lists
    assert "createSshKey" in told.lists  # the audit
    assert holding(told.lists.encode(), told.needles) == set()


async def test_the_servers_log_tells_no_secret(told: Told) -> None:
    assert holding(told.log.encode(), told.needles) == set()


async def test_no_file_holds_a_secret_but_those_that_the_manual_names(told: Told) -> None:
    assert {"daos.db", "server.log", "compose.yaml"} <= {path.name for path in told.files}
    daos = home() / ".daos"
    deliveries = {daos / "projects", daos / "trees"}
    named = {
        path: held
        for path, held in told.leaking.items()
        if (path.parent.parent in deliveries and path.name == ".env") or path.parent.parent == daos / "state"
    }
    assert told.leaking == named
    assert {path.stat().st_mode & 0o777 for path in named} == {0o600}
    assert set().union(*named.values()) == set(told.canaries.of_containers)


async def test_no_command_line_and_no_environment_shows_a_secret(told: Told) -> None:
    assert told.watched == set()


async def test_a_container_has_its_variables_in_its_environment_alone(told: Told) -> None:
    assert holding(told.containers.encode(), told.needles) == set()


async def test_the_registry_was_given_the_password(told: Told) -> None:
    assert told.pulled_by == {f"{ROBOT}:{told.canaries.password}"}


@pytest.mark.parametrize("before", ["", "a", "ab", "abc"])
def test_a_secret_is_known_in_base64(before: str) -> None:
    text = f"{before}hunter2 and more".encode()
    for code in (base64.b64encode(text), base64.urlsafe_b64encode(text)):
        assert holding(b"Basic " + code, ["hunter2", "xhunter"]) == {"hunter2"}


async def test_a_key_that_is_refused_is_not_repeated(told: Told) -> None:
    assert [answer for answer in told.refusals if '"errors"' not in answer] == []
    assert [answer for answer in told.refusals if holding(answer.encode(), told.key)] == []


async def test_the_files_of_a_run_are_private(server: Server, client: Client, project: str) -> None:
    package = await client.package({"web": UNDECIDED})
    run_id = await client.start(await client.deployment(await client.local_host(), package, project))
    await client.phase(run_id, Phase.PREPARE)
    [directory] = server.run_root.iterdir()
    assert server.run_root.stat().st_mode & 0o777 == 0o700
    assert directory.stat().st_mode & 0o777 == 0o700
    for path in (server.data_dir / "admin-token", server.data_dir / "secret-key", *server.data_dir.glob("daos.db")):
        assert path.stat().st_mode & 0o777 == 0o600
    assert server.data_dir.stat().st_mode & 0o777 == 0o700
    await client.cancel(run_id)
    await client.end_of(run_id)
