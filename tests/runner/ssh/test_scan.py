"""Asking a real sshd for its keys, and what else may answer."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from runner.ssh import scan as module
from runner.ssh.scan import NoAnswer, scan
from tests.conftest import MakeSshd
from tests.support.port import free_port
from tests.support.sshd import SshServer


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives a host up after a second."""
    monkeypatch.setattr(module, "TIMEOUT", 1)


@asynccontextmanager
async def answering(address: str, words: bytes) -> AsyncIterator[int]:
    """A port where something else says `words` and hangs up."""

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(words)
        writer.close()

    server = await asyncio.start_server(answer, address, 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def test_a_host_shows_its_key(sshd: SshServer) -> None:
    [key] = await scan(sshd.address, sshd.port)
    assert (f"{key.type} {key.data}", key.fingerprint) == (sshd.host_key, sshd.host_key_fingerprint)
    assert not key.is_authority


async def test_a_host_shows_all_its_keys_the_best_first(make_sshd: MakeSshd) -> None:
    sshd = make_sshd()
    sshd.add_host_key("rsa")
    assert [key.type for key in await scan(sshd.address, sshd.port)] == ["ssh-ed25519", "ssh-rsa"]


async def test_a_closed_port(sshd: SshServer) -> None:
    with pytest.raises(NoAnswer, match="refuses the connection"):
        await scan(sshd.address, free_port(sshd.address))


async def test_an_unknown_name() -> None:
    with pytest.raises(NoAnswer, match=r"name no-such-host\.invalid is unknown"):
        await scan("no-such-host.invalid", 22)


@pytest.mark.usefixtures("hasty")
async def test_a_host_that_never_speaks(sshd: SshServer) -> None:
    with socket.create_server((sshd.address, 0)) as silent, pytest.raises(NoAnswer):
        await scan(sshd.address, silent.getsockname()[1])


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize(
    "words",
    [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-OpenSSH_9.9\r\n", b"* ssh-rsa AAAA\n", b"\0" * 100_000],
)
async def test_something_else_that_answers(sshd: SshServer, words: bytes) -> None:
    async with answering(sshd.address, words) as port:
        with pytest.raises(NoAnswer, match="shows no host key"):
            await scan(sshd.address, port)


@pytest.mark.usefixtures("hasty")
async def test_a_name_that_takes_ssh_keyscan_too_long(sshd: SshServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GRACE", -0.9)
    with socket.create_server((sshd.address, 0)) as silent, pytest.raises(NoAnswer, match="does not answer"):
        await scan(sshd.address, silent.getsockname()[1])


async def test_an_address_that_no_network_leads_to() -> None:
    with pytest.raises(NoAnswer, match=r"255\.255\.255\.255 port 22 cannot be reached: \w"):
        await scan("255.255.255.255", 22)


async def test_a_server_without_ssh_keyscan(sshd: SshServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "SYSTEM_PATH", str(tmp_path))
    with pytest.raises(NoAnswer, match="no ssh-keyscan"):
        await scan(sshd.address, sshd.port)


async def test_nothing_is_left_of_a_scan_that_is_given_up(sshd: SshServer) -> None:
    with socket.create_server((sshd.address, 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await scan(sshd.address, port)
        assert not _keyscans(port)


def _keyscans(port: int) -> list[str]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = entry.read_bytes().decode(errors="replace").replace("\0", " ")
        except OSError:
            continue
        if command.startswith("ssh-keyscan") and f" {port} " in command:
            found.append(command)
    return found
