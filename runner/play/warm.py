"""The server's side of the warm process: it is started, tested against a cold play, and started again when it ends.

While it starts, is tested, is gone, or refuses, plays are started the cold way, see `runner.play.launcher`.
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
TEST_TIMEOUT = 60.0  # seconds of a play that does nothing
END_TIMEOUT = 2.0  # seconds that the warm process has to end before it is killed
SHORTEST_PAUSE, LONGEST_PAUSE = 0.1, 60.0  # seconds before it is started again; each time twice as many

EXAMPLE = """
- name: Example
  hosts: all
  gather_facts: false
  tasks:
    - name: Say
      ansible.builtin.debug:
        msg: "{{ words | upper }}"
    - name: Run
      ansible.builtin.raw: "echo {{ words }}"
    - name: Fail
      ansible.builtin.raw: "exit 3"
"""
EXAMPLE_VARIABLES = {"ansible_connection": "local", "words": "hello"}


class Different(Exception):
    """A play that the warm process forks differs from a cold one; the text says how."""


class WarmAnsible:
    """The warm process: starts it, tests it, starts it again when it has ended, and has it fork plays."""

    def __init__(self, root: Path, name: str, passed_on: Mapping[str, str], *, cold: Starter = Process.start) -> None:
        """`root` is a directory of its own, `name` one that no other server has; for `passed_on` see `environment`.

        `cold` starts the play that a warm one is compared with.
        """
        self._root = root
        self._cookie = f"warm/{name}/"  # of no run
        self._passed_on = passed_on
        self._cold = cold
        self._process: asyncio.subprocess.Process | None = None
        self._control: socket.socket | None = None
        self._expected: list[Event] = []  # of the example, played the cold way
        self._decided = asyncio.Event()  # whether it is known which way plays are started
        self.is_ready = False  # whether it forks plays now

    @property
    def pid(self) -> int | None:
        """The warm process's, if there is one."""
        return self._process.pid if self._process is not None else None

    async def decided(self) -> bool:
        """Wait until it is known which way plays are started; whether it is the warm one."""
        await self._decided.wait()
        return self.is_ready

    async def start(self, request: PlayRequest) -> Process:
        """Have the warm process fork a play.  Raises: Refused."""
        if not self.is_ready:
            raise Refused("there is no warm process")
        return await self._fork(request)

    async def serve(self) -> None:
        """Keep a warm process until this is cancelled, or until a play turns out to differ there."""
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
                logger.warning("plays are started the cold way, because warm ones differ: %s", difference)
                self._decided.set()
                return
            except OSError:
                logger.exception("the warm process cannot be started")
            if clock() - beginning > LONGEST_PAUSE:
                pause = SHORTEST_PAUSE
            logger.warning("the warm process has ended; plays are started the cold way until there is a new one")
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _keep(self, process: asyncio.subprocess.Process) -> None:
        """Let plays be forked until the process ends."""
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
        """The warm process, ready; None where it cannot be had.  It is ended at the end."""
        control, its_control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        control.setblocking(False)
        with control, self._place() as place:
            with its_control:
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-P", "-m", "runner.play.forkserver", str(project_directory())),
                    stdin=its_control.fileno(),
                    stdout=asyncio.subprocess.DEVNULL,
                    stderr=asyncio.subprocess.PIPE,
                    env=environment(place, self._cookie.ljust(processes.ROOM, "/"), self._passed_on),
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
        with self._place() as place:
            inventory = {"all": {"hosts": {"example": EXAMPLE_VARIABLES}}}
            (place / "inventory.json").write_text(json.dumps(inventory))
            playbook = place / "example.yml"
            playbook.write_text(EXAMPLE)
            cookie = f"{self._cookie}example"
            variables = environment(place, cookie, self._passed_on)
            process = await start(PlayRequest(place, str(playbook), cookie, variables))
            try:
                return [event async for event in process.events()]
            finally:
                with anyio.CancelScope(shield=True):
                    await process.stop()

    async def _fork(self, request: PlayRequest) -> Process:
        """As `start`, before the test too."""
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
    def _place(self) -> Iterator[Path]:
        """A directory as runs have one."""
        private.claim(self._root)
        place = Path(tempfile.mkdtemp(dir=self._root))
        (place / "tmp").mkdir()
        try:
            yield place
        finally:
            private.remove(place)


async def _is_ready(control: socket.socket) -> bool:
    """Wait until the warm process has said that it is ready; whether it lived so long."""
    try:
        async with asyncio.timeout(START_TIMEOUT):
            return bool(await asyncio.get_running_loop().sock_recv(control, 1))
    except (TimeoutError, ConnectionError):
        return False


async def _end(process: asyncio.subprocess.Process) -> None:
    """See the warm process end, whose socket was closed."""
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
