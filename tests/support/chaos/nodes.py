"""The nodes: processes that are started again when they end, and a way to whichever of them answers."""

import asyncio
import itertools
import json
import os
import re
import signal
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar, TypeVarTuple

import httpx
from websockets.exceptions import WebSocketException

from daos.settings import Settings
from tests.support.client import Client, Json, Refused
from tests.support.server import Server

Given = TypeVarTuple("Given")
Answer = TypeVar("Answer")

AGAIN = {"INTERNAL_SERVER_ERROR", "TIMEOUT"}  # codes of a node whose database is away
AWAY = (httpx.HTTPError, json.JSONDecodeError, WebSocketException, OSError)  # what a node that is gone looks like
PAUSE = 0.5  # seconds before another node is asked
PLAY = re.compile(rb"(?:^|\0)DAOS_RUN=([0-9a-f]{16})/([0-9a-f]{8}-[0-9a-f-]{27})")


@dataclass
class Node:
    """A `daos serve` or `daos worker`; `faults` has a sentence for each of its ends that nobody wanted."""

    name: str
    server: Server
    is_up: bool = False
    is_frozen: bool = False
    absence: float = 0.0  # seconds before it is started again
    awaited: int | None = None  # the exit status that somebody has made it end with
    faults: list[str] = field(default_factory=list)

    @property
    def cookie(self) -> str:
        return Settings(data_dir=self.server.data_dir).cookie

    @property
    def is_well(self) -> bool:
        return self.is_up and not self.is_frozen

    async def keep(self, may_fail: Callable[[datetime], bool]) -> None:
        """Start it whenever it does not run, as a supervisor does.

        `may_fail` tells whether there was a time since then at which it had no database.
        """
        while True:
            await self._start(may_fail)
            while self.server.exit_status is None:  # noqa: ASYNC110 - a process that ends sets no event
                await asyncio.sleep(0.05)
            self.is_up = False
            if self.server.exit_status != self.awaited:
                self.faults.append(f"{self.name} ended with status {self.server.exit_status}, not {self.awaited}")
            self.awaited = None
            await asyncio.sleep(self.absence)

    def signal(self, number: signal.Signals, absence: float) -> None:
        """Make it end, and be away for so many seconds."""
        self.is_up, self.absence = False, absence
        self.awaited = -number if number == signal.SIGKILL else 0
        os.kill(self.server.pid, number)

    async def freeze(self, seconds: float) -> None:
        self.is_frozen = True
        os.kill(self.server.pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            os.kill(self.server.pid, signal.SIGCONT)
            self.is_frozen = False

    async def _start(self, may_fail: Callable[[datetime], bool]) -> None:
        while not self.is_up:
            beginning = datetime.now(UTC)
            try:
                await asyncio.to_thread(self.server.start)
                self.is_up = True
            except AssertionError as error:
                await asyncio.to_thread(self.server.close)
                if not may_fail(beginning):
                    self.faults.append(f"{self.name} does not start: {str(error)[-500:]}")
                await asyncio.sleep(1)


class Api:
    """The nodes that answer: one after the other is asked until one does."""

    def __init__(self, nodes: Iterable[Node]) -> None:
        self._clients = [Client(node.server) for node in nodes]
        self._turns = itertools.cycle(self._clients)
        self.lost = 0  # streams that ended too early, and went on at another node

    async def close(self) -> None:
        for client in self._clients:
            await client.close()

    async def ask(self, question: Callable[[Client, *Given], Awaitable[Answer]], *given: *Given) -> Answer:
        """The first answer to one of Client's questions.  Raises: Refused."""
        while True:
            try:
                return await question(next(self._turns), *given)
            except AWAY:
                pass
            except Refused as refused:
                if refused.code not in AGAIN:
                    raise
            await asyncio.sleep(PAUSE)

    async def follow(self, document: str, after: str | None = None, **variables: object) -> AsyncGenerator[Json]:
        """What a subscription tells behind the cursor, whichever node tells it, until the reader has enough."""
        while True:
            try:
                async with next(self._turns).subscribe(document, after=after, **variables) as events:
                    async for event in events:
                        [told] = event.values()
                        after = told.get("cursor") or told.get("endCursor") or after
                        yield told
            except AWAY:
                pass
            except Refused as refused:
                if not AGAIN.issuperset(error["extensions"]["code"] for error in refused.errors):
                    raise
            self.lost += 1
            await asyncio.sleep(PAUSE)


def plays() -> Mapping[str, Mapping[str, Sequence[int]]]:
    """The processes of this machine that play: their pids by the run, and by the cookie of their node."""
    found: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if match := PLAY.search((process / "environ").read_bytes()):
                found[match[2].decode()][match[1].decode()].append(int(process.name))
    return found


@dataclass
class Doubles:
    """Runs that two nodes have played at the same time, for longer than a look at all processes is wrong."""

    tolerance: float  # seconds
    nodes: Sequence[Node]
    found: set[str] = field(default_factory=set)
    looks: int = 0

    async def watch(self) -> None:
        clock = asyncio.get_running_loop().time
        since: dict[str, float] = {}
        ours = {node.cookie for node in self.nodes}
        while True:
            double = {run for run, nodes in (await asyncio.to_thread(plays)).items() if len(ours & nodes.keys()) > 1}
            since = {run: since.get(run, clock()) for run in double}
            self.found |= {run for run, beginning in since.items() if clock() - beginning > self.tolerance}
            self.looks += 1
            await asyncio.sleep(0.2)
