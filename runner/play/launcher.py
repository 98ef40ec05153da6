"""Starts plays, on the warm process where there is one, and keeps that going.

A play goes the cold way, as a program of its own, while the warm process starts, is tested, is gone, or refuses.
"""

import asyncio
import json
import logging
import socket
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Protocol

import anyio

from runner import private, processes
from runner.play.channel import Forked, NoAnswer, Refused
from runner.play.event import Event
from runner.play.play import Process, environment, project_directory, spec
from runner.play.playbooks import locate

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
    """A play on the warm process is not what it is as a program of its own; the text says how."""


class Start(Protocol):
    """Starts a play, see `Process.start`."""

    async def __call__(
        self, directory: Path, playbook: str, cookie: str, environment: Mapping[str, str], held: list[int], /
    ) -> Process: ...


class Keeper:
    """Starts plays and keeps the warm process.

    `root` is a directory of its own, `name` one that no other server has; for `passed_on` see `process.environment`,
    for `playbooks`, an operator's directory, `runner.play.playbooks`.
    """

    def __init__(
        self, root: Path, name: str, passed_on: Mapping[str, str], *, warm: bool, playbooks: Path | None = None
    ) -> None:
        self._root = root
        self._cookie = f"warm/{name}/"  # of no run
        self._passed_on = passed_on
        self._warm = warm
        self._playbooks = playbooks
        self._process: asyncio.subprocess.Process | None = None
        self._control: socket.socket | None = None
        self._expected: list[Event] = []  # of the example, played cold
        self._known = asyncio.Event()  # whether it is known which way plays go
        self.is_warm = False  # whether plays go to the warm process now
        self.plays: Counter[str] = Counter(warm=0, cold=0)  # how many went which way

    @property
    def pid(self) -> int | None:
        """The warm process's, if there is one."""
        return self._process.pid if self._process is not None else None

    async def settled(self) -> bool:
        """Wait until it is known which way plays go; whether it is the warm one."""
        await self._known.wait()
        return self.is_warm

    async def start(
        self,
        directory: Path,
        playbook: str,
        cookie: str,
        environment: Mapping[str, str],
        held: list[int],
        *,
        deadline: float | None = None,
    ) -> Process:
        """Play `playbook`, or the operator's, with the inventory in `directory`, see `Process.start`."""
        playbook = locate(playbook, self._playbooks)
        if self._warm:
            try:
                if not self.is_warm:
                    raise Refused("there is no warm process")
                process = await self._start_warm(directory, playbook, cookie, environment, held, deadline=deadline)
            except Refused as refused:
                logger.info("%s is played cold: %s", cookie, refused)
            else:
                self.plays["warm"] += 1
                return process
        process = await Process.start(directory, playbook, cookie, environment, held, deadline=deadline)
        self.plays["cold"] += 1
        return process

    async def serve(self) -> None:
        """Keep the warm process going until this is cancelled, or until it turns out that plays differ there."""
        if not self._warm:
            self._known.set()
            return
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
                logger.warning("plays go the cold way, for on the warm one they are not the same: %s", difference)
                self._known.set()
                return
            except OSError:
                logger.exception("the warm process cannot be started")
            if clock() - beginning > LONGEST_PAUSE:
                pause = SHORTEST_PAUSE
            logger.warning("the warm process has ended; until the next one is there, plays go the cold way")
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _keep(self, process: asyncio.subprocess.Process) -> None:
        """Let plays go to the warm process until it ends."""
        logger.info("plays go to the warm process %s", process.pid)
        self.is_warm = True
        self._known.set()
        try:
            await process.wait()
        finally:
            self._known.clear()
            self.is_warm = False

    @asynccontextmanager
    async def _started(self) -> AsyncIterator[asyncio.subprocess.Process | None]:
        """The warm process, ready; None where it cannot be had.  It is ended at the end."""
        control, its_control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        control.setblocking(False)
        with control, self._place() as place:
            with its_control:
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-P", "-m", "runner.play.warm", str(project_directory())),
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
                self._expected = self._expected or await self._play_example(Process.start)
                found = await self._play_example(self._start_warm)
        except (Refused, TimeoutError) as error:
            raise Different(str(error) or "the example does not end") from error
        if found != self._expected:
            raise Different(f"{found} is not {self._expected}")

    async def _play_example(self, start: Start) -> list[Event]:
        with self._place() as place:
            inventory = {"all": {"hosts": {"example": EXAMPLE_VARIABLES}}}
            (place / "inventory.json").write_text(json.dumps(inventory))
            (place / "example.yml").write_text(EXAMPLE)
            cookie = f"{self._cookie}example"
            variables = environment(place, cookie, self._passed_on)
            process = await start(place, str(place / "example.yml"), cookie, variables, [])
            try:
                return [event async for event in process.events()]
            finally:
                with anyio.CancelScope(shield=True):
                    await process.stop()

    async def _start_warm(
        self,
        directory: Path,
        playbook: str,
        cookie: str,
        environment: Mapping[str, str],
        held: list[int],
        *,
        deadline: float | None = None,
    ) -> Process:
        """As `start`, but on the warm process only.  Raises: Refused."""
        if self._control is None or self._process is None:
            raise Refused("there is no warm process")
        process = self._process
        asked = spec(directory, playbook, [], deadline)
        try:
            return Process(await Forked.start(self._control, environment, asked, held), cookie, directory)
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
