"""What befalls the nodes and the database, one kind after the other, as a seed decides."""

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random

from tests.support.chaos.nodes import Node, plays
from tests.support.chaos.traffic import Accepted, Traffic
from tests.support.postgres import Postgres

MOST_PATIENCE = 5.0  # seconds that a trouble waits for a worker that plays something
PLAY_KILLED, RUN_CANCELED = "play killed", "run canceled"


@dataclass(frozen=True)
class Extent:
    """How long troubles are, in seconds: each from a range."""

    gap: tuple[float, float]  # between the beginnings of two troubles
    absence: tuple[float, float]  # of a node that was killed or stopped
    freeze: tuple[float, float]
    outage: float  # of the database


@dataclass
class Troubles:
    """Does it.  `counts` are by kind; `outages` the times, in UTC, at which a database was not to be had."""

    workers: Sequence[Node]
    api: Sequence[Node]
    postgres: Postgres
    traffic: Traffic
    extent: Extent
    warm: bool
    seed: int
    counts: Counter[str] = field(default_factory=Counter)
    outages: list[tuple[datetime, datetime]] = field(default_factory=list)
    told: list[str] = field(default_factory=list)  # when which one came
    is_away: bool = False  # the database

    @property
    def kinds(self) -> Mapping[str, Callable[[str, Random], Coroutine[None, None, None]]]:
        """What can happen; each is given its own name, and chance."""
        return {
            "worker killed": self._kill_worker,
            "worker frozen": self._freeze_worker,
            "worker stopped": self._stop_worker,
            PLAY_KILLED: self._kill_play,
            **({"warm process killed": self._kill_warm} if self.warm else {}),
            "API node killed": self._kill_api,
            "PostgreSQL crashed": self._crash_database,
            "PostgreSQL restarted": self._restart_database,
            f"PostgreSQL away, {self.extent.outage:g} s": self._take_database_away,
        }

    def was_away(self, since: datetime) -> bool:
        """Whether there was a time since then without a database."""
        return self.is_away or any(end >= since for _, end in self.outages)

    async def make(self, seconds: float) -> None:
        """Go through all kinds in an order of chance, as often as there is time for, and at least once."""
        clock = asyncio.get_running_loop().time
        end, random, number = clock() + seconds, Random(self.seed), 0
        async with asyncio.TaskGroup() as group:
            while True:
                for kind in random.sample(sorted(self.kinds), len(self.kinds)):
                    await asyncio.sleep(random.uniform(*self.extent.gap))
                    if clock() > end and not self.kinds.keys() - self.counts.keys():
                        return
                    number += 1  # its chance is its own, whatever goes on meanwhile
                    making = group.create_task(self.kinds[kind](kind, Random(f"{self.seed} {number}")), name=kind)
                    if kind.startswith("PostgreSQL"):
                        await making  # there is only one

    def _note(self, kind: str, victim: str, hit: Sequence[Accepted]) -> None:
        self.counts[kind] += 1
        self.told.append(f"{datetime.now(UTC):%H:%M:%S} {kind}: {victim}, {len(hit)} runs")
        for run in hit:
            run.troubles.append(kind)

    async def _worker(self, random: Random) -> tuple[Node, list[Accepted]]:
        """A worker, and the runs that it is playing; one that plays some, as soon as there is one."""
        patience = asyncio.get_running_loop().time() + MOST_PATIENCE
        while True:
            there = [node for node in self.workers if node.is_well]
            playing = [node for node in there if self._played_by(node)]
            if playing or (there and asyncio.get_running_loop().time() > patience):
                victim = random.choice(playing or there)
                return victim, self._played_by(victim)
            await asyncio.sleep(0.1)

    def _played_by(self, node: Node) -> list[Accepted]:
        at_work = {run for run, nodes in plays().items() if node.cookie in nodes}
        return [run for run in self.traffic.active if run.id in at_work]

    async def _kill_worker(self, kind: str, random: Random) -> None:
        victim, hit = await self._worker(random)
        victim.signal(signal.SIGKILL, random.uniform(*self.extent.absence))
        self._note(kind, victim.name, hit)

    async def _stop_worker(self, kind: str, random: Random) -> None:
        victim, hit = await self._worker(random)
        victim.signal(signal.SIGTERM, random.uniform(*self.extent.absence))
        self._note(kind, victim.name, hit)

    async def _freeze_worker(self, kind: str, random: Random) -> None:
        victim, hit = await self._worker(random)
        self._note(kind, victim.name, hit)
        await victim.freeze(random.uniform(*self.extent.freeze))

    async def _kill_play(self, kind: str, random: Random) -> None:
        """Kill one of the processes that play a run, whichever it is: Ansible, a worker of it, an ssh."""
        while True:
            of_run = {run: [pid for pids in nodes.values() for pid in pids] for run, nodes in plays().items()}
            at_work = [run for run in self.traffic.active if run.id in of_run]
            if at_work:
                run = random.choice(at_work)
                pid = random.choice(sorted(of_run[run.id]))
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    self._note(kind, f"process {pid} of run {run.id}", [run])
                    return
            await asyncio.sleep(0.05)

    async def _kill_warm(self, kind: str, random: Random) -> None:
        while True:
            victim, hit = await self._worker(random)
            pid = victim.server.warm_pid
            with suppress(ProcessLookupError):
                if pid is not None:
                    os.kill(pid, signal.SIGKILL)
                    self._note(kind, victim.name, hit)
                    return
            await asyncio.sleep(0.1)

    async def _kill_api(self, kind: str, random: Random) -> None:
        while not (there := [node for node in self.api if node.is_well]):  # noqa: ASYNC110 - many things bring one back
            await asyncio.sleep(0.1)
        victim = random.choice(there)
        victim.signal(signal.SIGKILL, random.uniform(*self.extent.absence))
        self._note(kind, victim.name, list(self.traffic.active))

    async def _crash_database(self, kind: str, _random: Random) -> None:
        await self._without_database(kind, "immediate", 0)

    async def _restart_database(self, kind: str, _random: Random) -> None:
        await self._without_database(kind, "fast", 0)

    async def _take_database_away(self, kind: str, random: Random) -> None:
        await self._without_database(kind, random.choice(["fast", "immediate"]), self.extent.outage)

    async def _without_database(self, kind: str, mode: str, seconds: float) -> None:
        beginning, self.is_away = datetime.now(UTC), True
        self._note(kind, mode, list(self.traffic.active))
        await asyncio.to_thread(self.postgres.stop, mode)
        try:
            await asyncio.sleep(seconds)
        finally:
            await asyncio.to_thread(self.postgres.start)
            self.outages.append((beginning, datetime.now(UTC)))
            self.is_away = False
