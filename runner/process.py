"""The server's side of a playing process: starts it, reads its events, and ends it with all that it has started."""

import asyncio
import json
import logging
import os
import sys
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path

from runner import leftovers
from runner.events import Event, Kind

logger = logging.getLogger(__name__)

LINE_LIMIT = 64 * 1024 * 1024  # bytes of one event; the action plugin's own limits are far below
STOP_TIMEOUT = 10.0  # seconds that the process has to end what it started before it is killed
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def project_directory() -> Path:
    """Where playbooks and roles are: beside this module in an installed daos, `ansible/` in a checkout."""
    installed = Path(__file__).parent / "project"
    return installed if installed.is_dir() else Path(__file__).parent.parent / "ansible"


def environment(directory: Path, cookie: str, passed_on: Mapping[str, str]) -> dict[str, str]:
    """The whole environment of a playing process.

    Nothing is inherited: the server's environment may hold a database password or a token, and ansible-runner writes
    what it is given to disk.  `passed_on` is what docker on this machine needs, DOCKER_HOST for one.
    """
    return {
        **passed_on,
        leftovers.COOKIE: cookie,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), SYSTEM_PATH]),
        "HOME": str(Path.home()),
        "LANG": "C.UTF-8",
        "TMPDIR": str(directory / "tmp"),
        "ANSIBLE_CONFIG": str(project_directory() / "ansible.cfg"),
        "ANSIBLE_HOME": str(directory / "ansible"),
        "ANSIBLE_LOCAL_TEMP": str(directory / "tmp"),
        # ansible-runner switches the check off where this is not set.
        "ANSIBLE_HOST_KEY_CHECKING": "True",
    }


class Process:
    """One playing process."""

    def __init__(self, process: asyncio.subprocess.Process, cookie: str) -> None:
        self._process = process
        self._cookie = cookie
        self._stopping: asyncio.Task[None] | None = None

    @classmethod
    async def start(
        cls, directory: Path, playbook: str, cookie: str, environment: Mapping[str, str], held: list[int]
    ) -> "Process":
        """Play `playbook` with the inventory in `directory`.

        `held` are descriptors that the process keeps open until all that it started has ended.
        """
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "runner.playbook"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment,
            pass_fds=held,
            limit=LINE_LIMIT,
            start_new_session=True,  # Ctrl-C at the server's terminal is for the server
        )
        play = cls(process, cookie)
        project = str(project_directory())
        play._say({"directory": str(directory), "project": project, "playbook": playbook, "held": held})
        return play

    @property
    def pid(self) -> int:
        return self._process.pid

    async def events(self) -> AsyncGenerator[Event]:
        """The events as they come, until the process ends.  Without an END among them it was killed."""
        assert self._process.stdout is not None
        stderr = asyncio.create_task(self._log_stderr(), name=f"stderr of {self._cookie}")
        try:
            async for line in self._process.stdout:
                message = json.loads(line)
                yield Event(Kind(message.pop("kind")), **message)
            await self._process.wait()
        finally:
            stderr.cancel()

    async def stop(self) -> None:
        """End the process and all that it has started; returns when none of it is left.  May be called twice."""
        if self._stopping is None:
            self._stopping = asyncio.create_task(self._stop(), name=f"stop {self._cookie}")
        await asyncio.shield(self._stopping)

    async def _stop(self) -> None:
        if self._process.returncode is None:
            self._say({"stop": True})
            try:
                async with asyncio.timeout(STOP_TIMEOUT):
                    await self._process.wait()
            except TimeoutError:
                logger.warning("the playing process %s does not end, killing it", self._process.pid)
                self._process.kill()
                await self._process.wait()
        # A process that was killed could not clean up after itself.
        await asyncio.to_thread(leftovers.end, self._cookie, 0)

    def _say(self, message: object) -> None:
        assert self._process.stdin is not None
        # A dead process reads nothing; that it is dead shows in its events.
        if not self._process.stdin.is_closing():
            self._process.stdin.write(json.dumps(message).encode() + b"\n")

    async def _log_stderr(self) -> None:
        assert self._process.stderr is not None
        async for line in self._process.stderr:
            logger.warning("%s: %s", self._cookie, line.decode(errors="replace").rstrip())
