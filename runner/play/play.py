"""The server's side of a playing process: starts it, reads its events, and ends it with all that it has started."""

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

LINE_LIMIT = 16 * 1024 * 1024  # bytes of one event; the action plugin's own limits are below
MOST_WORDS = 64 * 1024  # bytes of stderr that are logged at once
STOP_TIMEOUT = 10.0  # seconds that the process has to end what it started before it is killed
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def project_directory() -> Path:
    """Where playbooks and roles are: beside this module in an installed daos, `ansible/` in a checkout."""
    installed = Path(__file__).parents[1] / "playbooks"
    return installed if installed.is_dir() else Path(__file__).parents[2] / "ansible"


def environment(directory: Path, cookie: str, passed_on: Mapping[str, str]) -> dict[str, str]:
    """The whole environment of a playing process.

    Nothing is inherited: the server's environment may hold a database password or a token, and ansible-runner writes
    what it is given to disk.  `passed_on` is what docker on this machine needs, DOCKER_HOST for one.
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
        # ansible-runner switches the check off where this is not set.
        "ANSIBLE_HOST_KEY_CHECKING": "True",
    }


def spec(request: PlayRequest, held: tuple[int, ...]) -> dict[str, Any]:
    """The first message to a playing process, see `runner.play.program.Spec`; `held` as the process numbers them."""
    return {
        "directory": str(request.directory),
        "project": str(project_directory()),
        "playbook": request.playbook,
        "held": list(held),
        "deadline": request.deadline,
    }


class TooLong(Exception):
    """The playing process has sent a message of more than `LINE_LIMIT` bytes."""


class Channel(Protocol):
    """How the server talks with a playing process, whichever way it was started."""

    pid: int

    def say(self, message: object) -> None:
        """Write a line to it; one that is dead reads nothing."""
        ...

    async def read(self) -> dict[str, Any] | None:
        """Its next message, None at the end.  Raises: TooLong."""
        ...

    async def read_stderr(self) -> str | None:
        """Its next words on stderr, None at the end."""
        ...

    async def wait(self) -> bool:
        """Wait for its end; whether it was one with nothing left of what the process had started."""
        ...

    def kill(self) -> None: ...


class Program:
    """The channel to a playing process that is a program of its own, `runner.play.program`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.pid = process.pid

    @classmethod
    async def start(cls, request: PlayRequest) -> "Program":
        """Start the program and send it what it is to play."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "runner.play.program"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=request.environment,
            pass_fds=request.kept_open,
            limit=LINE_LIMIT,
            start_new_session=True,  # Ctrl-C at the server's terminal is for the server
        )
        program = cls(process)
        program.say(spec(request, request.kept_open))
        return program

    def say(self, message: object) -> None:
        assert self._process.stdin is not None
        if not self._process.stdin.is_closing():
            self._process.stdin.write(json.dumps(message).encode() + b"\n")

    async def read(self) -> dict[str, Any] | None:
        assert self._process.stdout is not None
        return await read_message(self._process.stdout)

    async def read_stderr(self) -> str | None:
        assert self._process.stderr is not None
        return await read_words(self._process.stderr)

    async def wait(self) -> bool:
        return await self._process.wait() == 0

    def kill(self) -> None:
        self._process.kill()


async def read_message(reader: asyncio.StreamReader) -> dict[str, Any] | None:
    """The next message of a playing process; None where it was cut off in the middle of one.  Raises: TooLong."""
    try:
        line = await reader.readuntil(b"\n")
    except asyncio.IncompleteReadError:
        return None
    except asyncio.LimitOverrunError as error:
        raise TooLong from error
    read: dict[str, Any] = json.loads(line)
    return read


async def read_words(reader: asyncio.StreamReader) -> str | None:
    """The next words, with no regard to lines: who writes one that never ends must not be held up, or be held here."""
    return (await reader.read(MOST_WORDS)).decode(errors="replace") or None


class Process:
    """One playing process."""

    def __init__(self, channel: Channel, request: PlayRequest) -> None:
        self._channel = channel
        self._cookie = request.cookie
        self._directory = request.directory
        self._stopping: asyncio.Task[None] | None = None

    @classmethod
    async def start(cls, request: PlayRequest) -> "Process":
        """Start a play the cold way, as a program of its own.

        At the request's deadline it begins to end by itself, whatever becomes of this server, and has ended all that it
        started within three times `program.GRACE`; see `extend`.
        """
        return cls(await Program.start(request), request)

    @property
    def pid(self) -> int:
        return self._channel.pid

    async def events(self) -> AsyncGenerator[Event]:
        """The events as they come, until the process ends.

        Without an END among them it was killed, also for a message that is too long, or its deadline has passed: from
        then on it tells nothing.
        """
        stderr = asyncio.create_task(self._log_stderr(), name=f"stderr of {self._cookie}")
        try:
            while (message := await self._channel.read()) is not None:
                yield Event.read(message)
            await self._channel.wait()
        except TooLong:
            logger.error("the playing process %s has sent a message that is too long, killing it", self.pid)
            self._channel.kill()
        finally:
            stderr.cancel()

    def extend(self, deadline: float) -> None:
        """Move the deadline; a play that has ended, or has begun to at the last one, hears nothing."""
        self._channel.say({"deadline": deadline})

    async def stop(self) -> None:
        """End the process and all that it has started; returns when none of it is left.  May be called twice."""
        if self._stopping is None:
            self._stopping = asyncio.create_task(self._stop(), name=f"stop {self._cookie}")
        await asyncio.shield(self._stopping)

    async def _stop(self) -> None:
        ending = asyncio.create_task(self._channel.wait(), name=f"end of {self._cookie}")
        await asyncio.sleep(0)  # lets the task of a process that has ended already end
        if not ending.done():
            self._channel.say({"stop": True})
            await asyncio.wait({ending}, timeout=STOP_TIMEOUT)
        if not ending.done():
            logger.warning("the playing process %s does not end, killing it", self.pid)
            self._channel.kill()
        # A process that was killed could not clean up after itself.
        if not await ending:
            await asyncio.to_thread(processes.end, self._cookie, 0)
            await asyncio.to_thread(processes.end_masters, self._directory, 0)

    async def _log_stderr(self) -> None:
        while (words := await self._channel.read_stderr()) is not None:
            for line in words.splitlines():
                logger.warning("%s: %s", self._cookie, line.rstrip())
