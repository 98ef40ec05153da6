"""The server's side of the warm process: starts it, tests it against a cold play, and restarts it when it ends.

While it is starting, being tested, or not running, and when it refuses a play, plays are started cold, see
`runner.play.launcher`.
"""

import asyncio
import json
import logging
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import anyio

from runner import private, processes
from runner.play.channel import Forked, NoAnswer, Refused
from runner.play.event import Event
from runner.play.launcher import Starter
from runner.play.play import Process, environment, project_directory
from runner.play.request import PlayRequest

logger = logging.getLogger(__name__)

START_TIMEOUT = 60.0  # seconds to load Ansible
TEST_TIMEOUT = 60.0  # seconds for a play that does nothing
END_TIMEOUT = 2.0  # seconds that the warm process has to end before it is killed
SHORTEST_PAUSE, LONGEST_PAUSE = 0.1, 60.0  # seconds before a restart; doubled each time

EXAMPLE = """
- name: Example
  hosts: all
  gather_facts: false
  tasks:
    - name: Print
      ansible.builtin.debug:
        msg: "{{ text | upper }}"
    - name: Run
      ansible.builtin.raw: "echo {{ text }}"
    - name: Fail
      ansible.builtin.raw: "exit 3"
"""
EXAMPLE_VARIABLES = {"ansible_connection": "local", "text": "hello"}


class Different(Exception):
    """A play that the warm process forks differs from a cold one; the text describes the difference."""


class WarmAnsible:
    """Starts, tests, and restarts the warm process, and has it fork plays."""

    def __init__(self, root: Path, name: str, passed_on: Mapping[str, str], *, cold: Starter = Process.start) -> None:
        """Create it without starting the process.

        `root` is a directory for this object alone, `name` is unique among servers; for `passed_on` see `environment`.
        `cold` starts the play that a warm one is compared with.
        """
        self._root = root
        self._cookie = f"warm/{name}/"  # not the cookie of any run
        self._passed_on = passed_on
        self._cold = cold
        self._process: asyncio.subprocess.Process | None = None
        self._control: socket.socket | None = None
        self._expected: list[Event] = []  # of the example, played cold
        self._decided = asyncio.Event()  # set when it is known whether plays are started warm or cold
        self.is_ready = False  # whether it currently forks plays

    @property
    def pid(self) -> int | None:
        """The pid of the warm process; None if there is none."""
        return self._process.pid if self._process is not None else None

    async def decided(self) -> bool:
        """Wait until it is known whether plays are started warm or cold, and return whether they are started warm."""
        await self._decided.wait()
        return self.is_ready

    async def start(self, request: PlayRequest) -> Process:
        """Have the warm process fork a play.  Raises: Refused."""
        if not self.is_ready:
            raise Refused("there is no warm process")
        return await self._fork(request)

    async def serve(self) -> None:
        """Keep a warm process running until this is canceled, or until a warm play differs from a cold one."""
        await asyncio.to_thread(processes.end, self._cookie, 0)  # of a server that was killed
        await asyncio.to_thread(private.remove, self._root)
        pause, clock = SHORTEST_PAUSE, asyncio.get_running_loop().time
        while True:
            beginning = clock()
            try:
                async with self._started() as process:
                    if process is not None:
                        await self._test()
                        await self._keep(process)
            except Different as difference:
                logger.warning("plays are started cold, because warm ones differ: %s", difference)
                self._decided.set()
                return
            except OSError:
                logger.exception("the warm process cannot be started")
            if clock() - beginning > LONGEST_PAUSE:
                pause = SHORTEST_PAUSE
            logger.warning("the warm process has ended; plays are started cold until it has been restarted")
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _keep(self, process: asyncio.subprocess.Process) -> None:
        """Allow plays to be forked until the process ends."""
        logger.info("plays are forks of the warm process %s", process.pid)
        self.is_ready = True
        self._decided.set()
        try:
            await process.wait()
        finally:
            self._decided.clear()
            self.is_ready = False

    @asynccontextmanager
    async def _started(self) -> AsyncIterator[asyncio.subprocess.Process | None]:
        """Yield the warm process when it is ready, None if it does not become ready; then end it."""
        control, its_control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        control.setblocking(False)
        with control, self._directory() as directory:
            with its_control:
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-P", "-m", "runner.play.forkserver", str(project_directory())),
                    stdin=its_control.fileno(),
                    stdout=asyncio.subprocess.DEVNULL,
                    stderr=asyncio.subprocess.PIPE,
                    env=environment(directory, self._cookie.ljust(processes.COOKIE_ROOM, "/"), self._passed_on),
                    start_new_session=True,
                )
            stderr = asyncio.create_task(_log_stderr(process), name="stderr of the warm process")
            self._process, self._control = process, control
            try:
                yield process if await _is_ready(control) else None
            finally:
                self._process = self._control = None
                control.close()
                with anyio.CancelScope(shield=True):
                    await _end(process)
                stderr.cancel()

    async def _test(self) -> None:
        """Play the example on the warm process.  Raises: Different."""
        try:
            async with asyncio.timeout(TEST_TIMEOUT):
                self._expected = self._expected or await self._play_example(self._cold)
                found = await self._play_example(self._fork)
        except (Refused, TimeoutError) as error:
            raise Different(str(error) or "the example does not end") from error
        if found != self._expected:
            raise Different(f"{found} is not {self._expected}")

    async def _play_example(self, start: Starter) -> list[Event]:
        with self._directory() as directory:
            inventory = {"all": {"hosts": {"example": EXAMPLE_VARIABLES}}}
            (directory / "inventory.json").write_text(json.dumps(inventory))
            playbook = directory / "example.yml"
            playbook.write_text(EXAMPLE)
            cookie = f"{self._cookie}example"
            variables = environment(directory, cookie, self._passed_on)
            process = await start(PlayRequest(directory, str(playbook), cookie, variables))
            try:
                return [event async for event in process.events()]
            finally:
                with anyio.CancelScope(shield=True):
                    await process.stop()

    async def _fork(self, request: PlayRequest) -> Process:
        """Do what `start` does, also before the test has passed."""
        if self._control is None or self._process is None:
            raise Refused("there is no warm process")
        process = self._process
        try:
            return Process(await Forked.start(self._control, request), request)
        except NoAnswer:
            if process.returncode is None:
                process.kill()
            raise

    @contextmanager
    def _directory(self) -> Iterator[Path]:
        """Yield a new directory like that of a run; it is removed at the end."""
        private.claim(self._root)
        directory = Path(tempfile.mkdtemp(dir=self._root))
        (directory / "tmp").mkdir()
        try:
            yield directory
        finally:
            private.remove(directory)


async def _is_ready(control: socket.socket) -> bool:
    """Wait until the warm process reports that it is ready; False if it ends or times out first."""
    try:
        async with asyncio.timeout(START_TIMEOUT):
            return bool(await asyncio.get_running_loop().sock_recv(control, 1))
    except (TimeoutError, ConnectionError):
        return False


async def _end(process: asyncio.subprocess.Process) -> None:
    """Wait for the end of the warm process, whose socket was closed; kill it after `END_TIMEOUT`."""
    try:
        async with asyncio.timeout(END_TIMEOUT):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


async def _log_stderr(process: asyncio.subprocess.Process) -> None:
    assert process.stderr is not None
    async for line in process.stderr:
        logger.warning("the warm process: %s", line.decode(errors="replace").rstrip())
