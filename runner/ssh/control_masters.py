"""Connections to hosts that are kept open between runs, so that not every run has to log in: ssh's masters.

Whoever can talk to a master's socket is logged in, whatever key or host key the run has.  So a master's name is made of
all that a login depends on, and only hosts whose key is pinned have one.  It belongs to no run: one that is ended takes
its own commands along, and the master goes on.  Nobody waits for one: a run finds it open, or has its own connection.
"""

import asyncio
import hashlib
import logging
import shutil
import socket
from pathlib import Path

from db.models import HostTransport
from runner import private, processes
from runner.play.play import environment
from runner.ssh import key_in_memory
from runner.ssh.target import Target, connection_options

logger = logging.getLogger(__name__)

KEPT = 60  # seconds that a master is kept without a run; also how long it outlives a server that was killed
LONGEST_PATH = 80  # characters; ssh adds some before it makes the socket, whose path may have 107
CONNECT_TIMEOUT = 30.0  # seconds
GRACE = 1.0  # seconds between SIGTERM and SIGKILL


class Masters:
    """Masters of this server, named `name`, with their sockets in `directory`."""

    def __init__(self, directory: Path, name: str) -> None:
        self._directory = directory
        self._cookie = f"masters/{name}/"
        self._opening: dict[Path, asyncio.Task[None]] = {}

    async def find(self, target: Target) -> Path | None:
        """The socket of a master to the target; None where none is open.  It is opened then, for later."""
        if target.transport is HostTransport.LOCAL or not target.has_key or target.known_hosts is None:
            return None
        path = await asyncio.to_thread(self._path, target)
        if len(str(path)) > LONGEST_PATH or path in self._opening:
            return None
        if await asyncio.to_thread(_is_open, path):
            return path
        if path in self._opening:  # another run has looked at the same time
            return None
        self._opening[path] = asyncio.create_task(self._open(path, target), name=f"ssh master of {target.name}")
        return None

    def drop(self, path: Path) -> None:
        """Give up a master that did not reach its host."""
        path.unlink(missing_ok=True)  # it ends by itself, for nobody finds it any more

    async def close(self) -> None:
        """End all masters, those that a killed server has left too."""
        for opening in self._opening.values():
            opening.cancel()
        if self._opening:
            await asyncio.wait(self._opening.values())
        await asyncio.to_thread(processes.end, self._cookie, GRACE)  # those that are not open yet
        await asyncio.to_thread(processes.end_masters, self._directory, GRACE)
        await asyncio.to_thread(shutil.rmtree, self._directory, ignore_errors=True)

    def _path(self, target: Target) -> Path:
        assert target.known_hosts is not None
        key = hashlib.sha256(_private_key(target)).hexdigest()
        login = [str(target.id), key, target.known_hosts, target.user, target.address, target.port]
        return self._directory / hashlib.sha256(repr(login).encode()).hexdigest()[:24]

    async def _open(self, path: Path, target: Target) -> None:
        known_hosts = path.with_suffix(".known_hosts")
        try:
            await asyncio.to_thread(self._make_place, path, known_hosts, target)
            # The key has to be there only until ssh has logged in.
            with key_in_memory.shown(target.ssh_key) as key:
                await self._connect(path, known_hosts, target, key or target.ssh_key_path)
        except (OSError, TimeoutError) as error:
            logger.info("no ssh master of %s: %s", target.name, error)
        finally:
            known_hosts.unlink(missing_ok=True)
            del self._opening[path]

    async def _connect(self, path: Path, known_hosts: Path, target: Target, key: Path | None) -> None:
        """Have ssh log in, and stay in the background."""
        process = await asyncio.create_subprocess_exec(
            "ssh",
            *connection_options(target, known_hosts),
            *("-o", "ControlMaster=yes", "-o", f"ControlPersist={KEPT}", "-o", f"ControlPath={path}"),
            *("-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=2"),
            *("-i", str(key), "-p", str(target.port), "-l", target.user),
            *("--", target.address or "", "true"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            env=environment(self._directory, self._cookie, {}),
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    def _make_place(self, path: Path, known_hosts: Path, target: Target) -> None:
        private.claim(self._directory)
        path.unlink(missing_ok=True)  # of a master that is dead
        known_hosts.write_text(target.known_hosts or "")


def _private_key(target: Target) -> bytes:
    if target.ssh_key is not None:
        return target.ssh_key.reveal().encode()
    assert target.ssh_key_path is not None
    return target.ssh_key_path.read_bytes()


def _is_open(path: Path) -> bool:
    """Whether a master listens at `path`."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True
