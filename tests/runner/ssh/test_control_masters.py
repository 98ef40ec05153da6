"""Connections that are kept open: used by who has the same login, by nobody else, and gone at the end."""

import asyncio
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from db.encryption import Secret
from db.models import HostTransport
from runner import processes
from runner.ssh.control_masters import Masters
from runner.ssh.target import Target
from tests.conftest import MakeSshd
from tests.runner.plays import DEADLINE
from tests.support.keys import holders
from tests.support.sshd import SshServer


@pytest.fixture
def short_path() -> Iterator[Path]:
    """Sockets must have short paths."""
    with tempfile.TemporaryDirectory(prefix="d") as directory:
        yield Path(directory) / "ssh"


@pytest.fixture
async def masters(short_path: Path) -> AsyncIterator[Masters]:
    masters = Masters(short_path, f"test-{secrets.token_hex(8)}")
    yield masters
    await masters.close()


@pytest.fixture
def own_sshd(make_sshd: MakeSshd) -> SshServer:
    return make_sshd()


@pytest.fixture
def target(own_sshd: SshServer) -> Target:
    identity = uuid4()
    return Target(
        id=identity,
        name="host",
        transport=HostTransport.SSH,
        address=own_sshd.address,
        port=own_sshd.port,
        user=own_sshd.user,
        ssh_key_path=own_sshd.key_path,
        known_hosts=f"{identity} {own_sshd.host_key}\n",
    )


async def opened(masters: Masters, target: Target) -> Path:
    """The socket of the master, when it is there."""
    async with asyncio.timeout(DEADLINE):
        while (path := await masters.find(target)) is None:  # noqa: ASYNC110 - ssh says nothing
            await asyncio.sleep(0.01)
    return path


async def settled(masters: Masters) -> None:
    """Return when no master is being opened."""
    if masters._opening:
        await asyncio.wait(masters._opening.values(), timeout=DEADLINE)


def other_key(directory: Path) -> Path:
    path = directory / "other_key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    return path


async def test_a_master_is_found_once_it_is_open_and_logs_in_once(
    masters: Masters, target: Target, own_sshd: SshServer
) -> None:
    assert await masters.find(target) is None
    path = await opened(masters, target)
    assert await masters.find(target) == path
    command = ["ssh", "-F", "none", "-oControlMaster=no", f"-oControlPath={path}", "anything", "echo", "through"]
    for _ in range(2):
        assert subprocess.run(command, check=True, capture_output=True).stdout == b"through\n"  # noqa: ASYNC221
    assert own_sshd.log.count("Accepted publickey") == 1


async def test_two_runs_at_once_open_one_master(masters: Masters, target: Target, own_sshd: SshServer) -> None:
    assert set(await asyncio.gather(masters.find(target), masters.find(target))) == {None}
    await opened(masters, target)
    assert own_sshd.log.count("Accepted publickey") == 1


OTHER_HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"
STORED = Secret("another key")
CHANGES: dict[str, Callable[[Target, Path], Target]] = {
    "key": lambda target, directory: replace(target, ssh_key_path=other_key(directory)),
    "stored key": lambda target, _: replace(target, ssh_key_path=None, ssh_key=STORED),
    "pinned host key": lambda target, _: replace(target, known_hosts=f"{target.id} {OTHER_HOST_KEY}\n"),
    "user": lambda target, _: replace(target, user="nobody"),
    "address": lambda target, _: replace(target, address="localhost"),
    "port": lambda target, _: replace(target, port=target.port + 1),
    "host": lambda target, _: replace(target, id=uuid4()),
}


@pytest.mark.parametrize("what", CHANGES)
async def test_no_other_login_finds_a_master(masters: Masters, target: Target, tmp_path: Path, what: str) -> None:
    path = await opened(masters, target)
    other = CHANGES[what](target, tmp_path)
    assert await masters.find(other) is None
    await settled(masters)
    assert await masters.find(other) != path
    assert await masters.find(target) == path


async def test_a_key_that_was_exchanged_in_its_file_is_another_login(
    masters: Masters, target: Target, own_sshd: SshServer, tmp_path: Path
) -> None:
    target = replace(target, ssh_key_path=Path(shutil.copy(own_sshd.key_path, tmp_path / "key")))
    path = await opened(masters, target)
    other_key(tmp_path).replace(tmp_path / "key")
    assert await masters.find(target) != path


async def test_a_stored_key_is_held_until_its_master_has_logged_in(
    masters: Masters, target: Target, own_sshd: SshServer
) -> None:
    text = own_sshd.key_path.read_text()
    target = replace(target, ssh_key_path=None, ssh_key=Secret(text))
    assert await masters.find(target) is None
    await settled(masters)
    assert holders(text) == []
    assert await masters.find(target) is not None
    assert own_sshd.log.count("Accepted publickey") == 1


@pytest.mark.parametrize(
    "change", [{"known_hosts": None}, {"ssh_key_path": None}, {"transport": HostTransport.LOCAL, "address": None}]
)
async def test_what_has_no_pinned_key_or_no_key_of_its_own_has_no_master(
    masters: Masters, target: Target, change: dict[str, Any]
) -> None:
    assert await masters.find(replace(target, **change)) is None
    assert masters._opening == {}


async def test_a_host_with_another_key_than_the_pinned_one_gets_no_master(
    masters: Masters, target: Target, own_sshd: SshServer
) -> None:
    own_sshd.change_host_key()
    assert await masters.find(target) is None
    await settled(masters)
    assert await masters.find(target) is None
    assert own_sshd.log.count("Accepted publickey") == 0


async def test_a_dead_masters_socket_is_not_used(masters: Masters, target: Target, short_path: Path) -> None:
    path = await opened(masters, target)
    [pid] = processes.find_masters(short_path)
    os.kill(pid, signal.SIGKILL)
    async with asyncio.timeout(DEADLINE):
        while processes.find_masters(short_path):  # noqa: ASYNC110 - it is nobody's child
            await asyncio.sleep(0.01)
    assert path.exists()
    assert await masters.find(target) is None
    assert await opened(masters, target) == path


async def test_a_dropped_master_is_found_no_more(masters: Masters, target: Target) -> None:
    path = await opened(masters, target)
    masters.drop(path)
    assert await masters.find(target) is None


async def test_closing_ends_every_master(masters: Masters, target: Target, short_path: Path) -> None:
    await opened(masters, target)
    assert len(processes.find_masters(short_path)) == 1
    await masters.close()
    assert processes.find_masters(short_path) == []
    assert os.listdir(short_path.parent) == []  # noqa: PTH208
