"""Many runs at once, while some are cancelled and the warm process is killed: what a server has to survive."""

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from random import Random

from tests.support.client import Client, Json
from tests.support.docker import Docker
from tests.support.remains import Place
from tests.support.server import at_work, wait_until

LONGEST_WAIT = 1.5  # seconds until a run is cancelled, or the warm process is killed


@dataclass
class Turmoil:
    """Plays the deployments, whose ids are given by project, all at the same time over and over.

    Each project is one container that stays.  `wrong` has a sentence for each run whose end was not true or not clean.
    """

    place: Place
    client: Client
    docker: Docker
    deployments: Mapping[str, str]
    random: Random
    statuses: Counter[str] = field(default_factory=Counter)
    kills: int = 0  # of the warm process, with plays of it at work
    wrong: list[str] = field(default_factory=list)

    async def play(self, runs: int, cancels: int, kills: int) -> None:
        """Play so many runs, cancel some of them, and kill the warm process so often, each time after it has come.

        After the last one there are as many runs as between two of them.
        """
        canceled = set(self.random.sample(range(runs), cancels))
        turns = kills + 1
        for turn in range(turns):
            await asyncio.to_thread(self.place.server.wait_until_warm)
            numbers = iter(range(runs * turn // turns, runs * (turn + 1) // turns))
            async with asyncio.TaskGroup() as group:
                for project in self.deployments:
                    group.create_task(self._play_in_turn(project, numbers, canceled))
                if turn < kills:
                    group.create_task(self._kill())

    async def _play_in_turn(self, project: str, numbers: Iterator[int], canceled: set[int]) -> None:
        for number in numbers:
            action = self.random.choice(["UP", "UP", "DOWN"])
            run_id = await self.client.start(self.deployments[project], action)
            in_time = number in canceled and await self._cancel(run_id)
            run = await self.client.end_of(run_id)
            self.statuses[run["status"]] += 1
            faults = await asyncio.to_thread(self._faults, project, run, in_time=in_time)
            if faults:
                log = await self.client.words(run_id)
                self.wrong.append(f"{project}, {action}, {run['status']}, {run['message']}: {', '.join(faults)}\n{log}")

    async def _cancel(self, run_id: str) -> bool:
        """Cancel the run at some moment; whether it had not ended by then."""
        await asyncio.sleep(self.random.uniform(0, LONGEST_WAIT))
        return (await self.client.cancel(run_id))["status"] in {"RUNNING", "CANCELED"}

    async def _kill(self) -> None:
        await asyncio.sleep(self.random.uniform(0, LONGEST_WAIT))
        server = self.place.server
        await asyncio.to_thread(wait_until, server.processes, "a run is played")
        assert server.warm_pid is not None
        os.kill(server.warm_pid, signal.SIGKILL)
        self.kills += 1

    def _faults(self, project: str, run: Json, *, in_time: bool) -> list[str]:
        """What is not as it has to be when a run has ended."""
        faults = [f"there is {path}" for path in self.place.scratch(project)]
        faults += [f"at work is {line}" for line in at_work(project).values()]
        expected = {"SUCCESS", "CANCELED"} if in_time else {"SUCCESS"}
        if run["status"] not in expected:
            faults.append(f"expected {' or '.join(sorted(expected))}")
        if run["status"] == "SUCCESS":
            states = [container["state"] for container in run["containers"]]
            there = ["RUNNING"] if run["action"] == "UP" else []
            running = self.docker.run(
                "ps", "--quiet", "--filter", f"label=com.docker.compose.project={project}"
            ).split()
            if states != there or len(running) != len(there) or len(self.docker.containers(project)) != len(there):
                faults.append(f"its containers are {states}, and of its containers run {len(running)}")
        return faults
