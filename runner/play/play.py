"""The server's side of a play process: starts it, reads its events, and ends it with all that it has started."""

import asyncio
import json
import logging
import os
import sys
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any, Protocol

from runner import processes
from runner.play.event import Event
from runner.play.request import PlayRequest

logger = logging.getLogger(__name__)

LINE_LIMIT = 16 * 1024 * 1024  # bytes of one event; the action plugin's own limits are lower
MAX_STDERR = 64 * 1024  # bytes of stderr that are logged at once
STOP_TIMEOUT = 10.0  # seconds that the process has to end what it started before it is killed
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def project_directory() -> Path:
    """Return the directory of the playbooks: `runner/playbooks` in an installed daos, `ansible/` in a checkout."""
    installed = Path(__file__).parents[1] / "playbooks"
    return installed if installed.is_dir() else Path(__file__).parents[2] / "ansible"


def environment(directory: Path, cookie: str, passed_on: Mapping[str, str]) -> dict[str, str]:
    """Return the complete environment of a play process.

    Nothing is inherited: the server's environment may contain a database password or a token, and ansible-runner writes
    its environment to disk.  `passed_on` contains what Docker on this machine needs, for example DOCKER_HOST.
    """
    return {
        **passed_on,
        processes.COOKIE: cookie,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), SYSTEM_PATH]),
        "HOME": str(Path.home()),
        "LANG": "C.UTF-8",
        "TMPDIR": str(directory / "tmp"),
        "ANSIBLE_CONFIG": str(project_directory() / "ansible.cfg"),
        "ANSIBLE_HOME": str(directory / "ansible"),
        "ANSIBLE_LOCAL_TEMP": str(directory / "tmp"),
        # ansible-runner disables the check if this is not set.
        "ANSIBLE_HOST_KEY_CHECKING": "True",
    }


def spec(request: PlayRequest, held: tuple[int, ...]) -> dict[str, Any]:
    """Return the first message to a play process, see `runner.play.program.Spec`; `held` has the process's numbers."""
    return {
        "directory": str(request.directory),
        "project": str(project_directory()),
        "playbook": request.playbook,
        "held": list(held),
        "deadline": request.deadline,
    }


class TooLong(Exception):
    """The play process has sent a message of more than `LINE_LIMIT` bytes."""


class Channel(Protocol):
    """The connection to a play process, whether it was started warm or cold."""

    pid: int

    def send(self, message: object) -> None:
        """Send one message to the process; nothing happens if it is dead."""
        ...

    async def read(self) -> dict[str, Any] | None:
        """Return the next message, None at the end.  Raises: TooLong."""
        ...

    async def read_stderr(self) -> str | None:
        """Return the next text on stderr, None at the end."""
        ...

    async def wait(self) -> bool:
        """Wait for the end of the process; return whether it has ended everything that it started."""
        ...

    def kill(self) -> None: ...


class Program:
    """The channel to a play process that is a separate program, `runner.play.program`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.pid = process.pid

    @classmethod
    async def start(cls, request: PlayRequest) -> "Program":
        """Start the program, and send it the spec of the play."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "runner.play.program"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=request.environment,
            pass_fds=request.kept_open,
            limit=LINE_LIMIT,
            start_new_session=True,  # Ctrl-C in the server's terminal must reach only the server
        )
        program = cls(process)
        program.send(spec(request, request.kept_open))
        return program

    def send(self, message: object) -> None:
        assert self._process.stdin is not None
        if not self._process.stdin.is_closing():
            self._process.stdin.write(json.dumps(message).encode() + b"\n")

    async def read(self) -> dict[str, Any] | None:
        assert self._process.stdout is not None
        return await read_message(self._process.stdout)

    async def read_stderr(self) -> str | None:
        assert self._process.stderr is not None
        return await read_text(self._process.stderr)

    async def wait(self) -> bool:
        return await self._process.wait() == 0

    def kill(self) -> None:
        self._process.kill()


async def read_message(reader: asyncio.StreamReader) -> dict[str, Any] | None:
    """Return the next message of a play process; None at the end, also in the middle of a message.  Raises: TooLong."""
    try:
        line = await reader.readuntil(b"\n")
    except asyncio.IncompleteReadError:
        return None
    except asyncio.LimitOverrunError as error:
        raise TooLong from error
    read: dict[str, Any] = json.loads(line)
    return read


async def read_text(reader: asyncio.StreamReader) -> str | None:
    """Return the next text, None at the end.

    It is not read by lines: an endless line must neither block its writer nor fill this server's memory.
    """
    return (await reader.read(MAX_STDERR)).decode(errors="replace") or None


class Process:
    """One play process, as the server sees it."""

    def __init__(self, channel: Channel, request: PlayRequest) -> None:
        self._channel = channel
        self._cookie = request.cookie
        self._directory = request.directory
        self._stopping: asyncio.Task[None] | None = None

    @classmethod
    async def start(cls, request: PlayRequest) -> "Process":
        """Start a play cold, as a separate program.

        At the request's deadline it begins to end by itself, whatever happens to this server, and has ended all that it
        started within three times `program.GRACE`; see `extend`.
        """
        return cls(await Program.start(request), request)

    @property
    def pid(self) -> int:
        return self._channel.pid

    async def events(self) -> AsyncGenerator[Event]:
        """Yield the events as they arrive, until the process ends.

        If there is no END among them, the process was killed, possibly because a message was too long, or its deadline
        has passed, after which it emits nothing.
        """
        stderr = asyncio.create_task(self._log_stderr(), name=f"stderr of {self._cookie}")
        try:
            while (message := await self._channel.read()) is not None:
                yield Event.read(message)
            await self._channel.wait()
        except TooLong:
            logger.error("the play process %s has sent a message that is too long, killing it", self.pid)
            self._channel.kill()
        finally:
            stderr.cancel()

    def extend(self, deadline: float) -> None:
        """Move the deadline; this has no effect on a play that has ended, or has reached its previous deadline."""
        self._channel.send({"deadline": deadline})

    async def stop(self) -> None:
        """End the process and all that it has started; return when none of it is left.  May be called twice."""
        if self._stopping is None:
            self._stopping = asyncio.create_task(self._stop(), name=f"stop {self._cookie}")
        await asyncio.shield(self._stopping)

    async def _stop(self) -> None:
        ending = asyncio.create_task(self._channel.wait(), name=f"end of {self._cookie}")
        await asyncio.sleep(0)  # lets the task finish if the process has already ended
        if not ending.done():
            self._channel.send({"stop": True})
            await asyncio.wait({ending}, timeout=STOP_TIMEOUT)
        if not ending.done():
            logger.warning("the play process %s does not end, killing it", self.pid)
            self._channel.kill()
        # A process that was killed could not clean up after itself.
        if not await ending:
            await asyncio.to_thread(processes.end, self._cookie, 0)
            await asyncio.to_thread(processes.end_masters, self._directory, 0)

    async def _log_stderr(self) -> None:
        while (text := await self._channel.read_stderr()) is not None:
            for line in text.splitlines():
                logger.warning("%s: %s", self._cookie, line.rstrip())
