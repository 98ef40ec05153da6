"""A secret variable's value is found nowhere but in the container that it is for, and a private key nowhere at all."""

import asyncio
import secrets
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import text

from db.encryption import Keyring
from tests.e2e.client import UNDECIDED, Client, Json, service
from tests.e2e.conftest import QUICK, projects
from tests.e2e.database import connected
from tests.e2e.server import Server
from tests.runner.test_keys import make_key
from tests.support.docker import Docker
from tests.support.sshd import SshServer

EVERYTHING = """query($id: ID!) { deployment(id: $id) {
    status variables { name value secret } logs(first: 100) { nodes { message } }
    latestRun { message services { name image state } log(first: 100) { nodes { message task } } }
    package { composeFile files { content } } } }"""

CREATE_SSH_KEY = "mutation($input: CreateSshKeyInput!) { createSshKey(input: $input) { sshKey { id publicKey } } }"

# What a project does with the variables, and how its run ends.
WAYS: dict[str, tuple[Json, str]] = {
    "printed": (service("sh", "-c", "echo told: $$TOKEN; sleep 1000"), "SUCCESS"),
    "printed-and-ended": (service("sh", "-c", "echo told: $$TOKEN; exit 3"), "FAILED"),
    "lines-printed": (service("sh", "-c", 'printf "%s\\n" "$$KEY"; exit 3'), "FAILED"),
    "refused": ({"image": "demo:1", "ports": ["${TOKEN}"]}, "FAILED"),
    "quotes-refused": ({"image": "demo:1", "ports": ["${QUOTED}"]}, "FAILED"),
    "lines-refused": ({"image": "demo:1", "deploy": {"replicas": "${KEY}"}}, "FAILED"),
}
# The image of a container is shown to everybody on its host, by docker itself.
IMAGES: dict[str, tuple[Json, str]] = {
    "image": ({"image": "registry.invalid/${TOKEN}:1"}, "FAILED"),
    "quotes-image": ({"image": "registry.invalid/x:${QUOTED}"}, "FAILED"),
}


@dataclass(frozen=True)
class Told:
    """All that was said and written down while runs with secrets were played."""

    needles: tuple[str, ...]  # of the variables, of the key and of its passphrase
    key: tuple[str, ...]  # those that not even a container may have
    refusals: list[str]  # what the API answered to keys that it did not take
    answers: dict[tuple[str, str], tuple[str, str]]  # of the API after each run, and the run's status
    log: str  # the server's
    files: dict[Path, bytes]  # below the data directory and where runs have theirs
    command_lines: set[str]  # with a secret in them
    environments: set[str]  # with a part of the key in them


@pytest.fixture(scope="module")
async def told(tmp_path_factory: pytest.TempPathFactory, docker: Docker, sshd: SshServer) -> AsyncIterator[Told]:
    """What a talkative server tells of a run in each of the ways, on both connections; by SSH with a kept key."""
    core, line, quoted = (f"x{secrets.token_hex(8)}" for _ in range(3))
    variables: list[Json] = [
        {"name": "TOKEN", "value": core, "secret": True},
        {"name": "KEY", "value": f"-----BEGIN\n{line}\n-----END\n", "secret": True},
        {"name": "QUOTED", "value": f'a"b\\{quoted}\'c"', "secret": True},
    ]
    passphrase = f"x{secrets.token_hex(8)}"
    given = make_key(tmp_path_factory.mktemp("key") / "key", passphrase=passphrase).read_text()
    server = Server(tmp_path_factory.mktemp("server"), {**QUICK, "DAOS_LOG_LEVEL": "debug"})
    server.start()
    client = Client(server)
    try:
        with projects(docker) as new_project:
            server.wait_until_warm()
            kept = await client.ssh_key(privateKey=given, passphrase=passphrase)
            sshd.authorize(kept["publicKey"])
            by_key = await client.ssh_host(sshd, sshKeyPath=None, sshKeyId=kept["id"])
            key = (passphrase, *parts(given), *parts(stored_key(server)))
            refusals = [
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
            hosts = {"LOCAL": await client.local_host(), "SSH": by_key}

            async def play(ways: dict[str, tuple[Json, str]]) -> dict[tuple[str, str], str]:
                ids = {}
                for name, (project, _) in ways.items():
                    package = await client.package({"web": {"environment": ["TOKEN", "KEY"], **project}})
                    for connection, host in hosts.items():
                        ids[connection, name] = await client.deployment(host, package, new_project(), variables)
                await asyncio.gather(*(client.play(deployment) for deployment in ids.values()))
                return ids

            with watching("cmdline", core, line, quoted, *key) as lines, watching("environ", *key) as environments:
                ids = await play(WAYS)
            ids |= await play(IMAGES)
            answers = {
                place: ((await client.post(EVERYTHING, {"id": deployment})).text, await client.status(deployment))
                for place, deployment in ids.items()
            }
            files = {
                path: path.read_bytes()
                for root in (server.data_dir, *server.run_root.parent.glob(f"{server.run_root.name}*"))
                for path in root.rglob("*")
                if path.is_file()
            }
            needles = (core, line, quoted, *key)
            yield Told(needles, key, refusals, answers, server.log, files, lines, environments)
    finally:
        await client.close()
        server.close()


def stored_key(server: Server) -> str:
    """The one key that the server keeps, as it hands it to ssh."""
    with connected(server) as database:
        ciphertext = database.scalars(text("SELECT ciphertext FROM ssh_keys")).one()
    return Keyring.read(server.data_dir / "secret-key").decrypt(ciphertext).reveal()


def parts(text: str) -> list[str]:
    """What a private key can be known by: its lines of base64, without the first one, which all of its kind share."""
    return [line for line in text.splitlines()[2:-1] if len(line) > 16]


@contextmanager
def watching(file: str, *needles: str) -> Iterator[set[str]]:
    """What is in this file of /proc with one of `needles` in it, of all processes while the block runs."""
    found: set[str] = set()
    stop = threading.Event()

    def look() -> None:
        while not stop.wait(0.02):
            for path in Path("/proc").glob(f"[0-9]*/{file}"):
                with suppress(OSError):
                    line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    if any(needle in line for needle in needles):
                        found.add(line)

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield found
    finally:
        stop.set()
        watcher.join()


@pytest.mark.parametrize("connection", ["LOCAL", "SSH"])
@pytest.mark.parametrize("way", [*WAYS, *IMAGES])
async def test_no_answer_tells_a_secret(told: Told, connection: str, way: str) -> None:
    answer, status = told.answers[connection, way]
    assert status == (WAYS | IMAGES)[way][1], answer
    assert [needle for needle in told.needles if needle in answer] == []


@pytest.mark.parametrize("connection", ["LOCAL", "SSH"])
@pytest.mark.parametrize("way", ["printed-and-ended", "lines-printed"])
async def test_the_words_around_a_secret_are_told(told: Told, connection: str, way: str) -> None:
    assert "********" in told.answers[connection, way][0]


async def test_the_servers_log_tells_no_secret(told: Told) -> None:
    assert [needle for needle in told.needles if needle in told.log] == []


async def test_no_file_of_the_server_holds_a_secret(told: Told) -> None:
    assert any(path.name == "daos.db" for path in told.files)
    assert [path for path, data in told.files.items() if any(needle.encode() in data for needle in told.needles)] == []


async def test_no_command_line_shows_a_secret(told: Told) -> None:
    assert told.command_lines == set()


async def test_no_environment_shows_a_key(told: Told) -> None:
    assert told.environments == set()


async def test_a_key_that_is_refused_is_not_repeated(told: Told) -> None:
    assert [answer for answer in told.refusals if '"errors"' not in answer] == []
    assert [answer for answer in told.refusals if any(needle in answer for needle in told.key)] == []


async def test_the_files_of_a_run_are_private(server: Server, client: Client, project: str) -> None:
    package = await client.package({"web": UNDECIDED})
    run_id = await client.start(await client.deployment(await client.local_host(), package, project))
    await client.task(run_id, "Prepare")
    [directory] = server.run_root.iterdir()
    assert server.run_root.stat().st_mode & 0o777 == 0o700
    assert directory.stat().st_mode & 0o777 == 0o700
    for path in (server.data_dir / "admin-token", server.data_dir / "secret-key", server.data_dir / "daos.db"):
        assert path.stat().st_mode & 0o777 == 0o600
    assert server.data_dir.stat().st_mode & 0o777 == 0o700
    await client.cancel(run_id)
    await client.end_of(run_id)
