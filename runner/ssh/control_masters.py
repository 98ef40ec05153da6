"""Keeps SSH connections to hosts open between runs, so that not every run has to log in: ssh's control masters.

A client of a master's socket is logged in, whatever key or host key the run has.  Therefore the name of the socket
depends on everything that a login depends on, and only hosts with a pinned key have a master.  A master belongs to no
run: when a run is ended, its own commands end with it, and the master stays.  No run waits for a master: if there is no
open one, the run opens its own connection.
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
LONGEST_PATH = 80  # characters; ssh adds some when it creates the socket, whose path is limited to 107
CONNECT_TIMEOUT = 30.0  # seconds
GRACE = 1.0  # seconds between SIGTERM and SIGKILL


class Masters:
    """The control masters of this server, which is named `name`, with their sockets in `directory`."""

    def __init__(self, directory: Path, name: str) -> None:
        self._directory = directory
        self._cookie = f"masters/{name}/"
        self._opening: dict[Path, asyncio.Task[None]] = {}

    async def find(self, target: Target) -> Path | None:
        """Return the socket of a master to the target; None if none is open, and then one is opened for later runs."""
        if target.transport is HostTransport.LOCAL or not target.has_key or target.known_hosts is None:
            return None
        path = await asyncio.to_thread(self._path, target)
        if len(str(path)) > LONGEST_PATH or path in self._opening:
            return None
        if await asyncio.to_thread(_is_open, path):
            return path
        if path in self._opening:  # another run has checked at the same time
            return None
        self._opening[path] = asyncio.create_task(self._open(path, target), name=f"ssh master of {target.name}")
        return None

    def drop(self, path: Path) -> None:
        """Stop using a master that did not reach its host."""
        path.unlink(missing_ok=True)  # no run finds it anymore, so it ends by itself

    async def close(self) -> None:
        """End all masters, including those that a killed server has left."""
        for opening in self._opening.values():
            opening.cancel()
        if self._opening:
            await asyncio.wait(self._opening.values())
        await asyncio.to_thread(processes.end, self._cookie, GRACE)  # masters that are not open yet
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
            await asyncio.to_thread(self._prepare_directory, path, known_hosts, target)
            # The key is needed only until ssh has logged in.
            with key_in_memory.shown(target.ssh_key) as key:
                await self._connect(path, known_hosts, target, key or target.ssh_key_path)
        except (OSError, TimeoutError) as error:
            logger.info("no ssh master of %s: %s", target.name, error)
        finally:
            known_hosts.unlink(missing_ok=True)
            del self._opening[path]

    async def _connect(self, path: Path, known_hosts: Path, target: Target, key: Path | None) -> None:
        """Have ssh log in and stay in the background."""
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

    def _prepare_directory(self, path: Path, known_hosts: Path, target: Target) -> None:
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
