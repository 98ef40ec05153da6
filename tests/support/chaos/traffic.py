"""Runs all the time: each deployment is run again and again, some runs are canceled, and everything is followed."""

import asyncio
import secrets
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from random import Random

from tests.support.chaos.host import Host, Word
from tests.support.chaos.nodes import Api
from tests.support.client import Client, Json

STATUS = """subscription($id: ID!, $after: String) { deploymentStatus(id: $id, after: $after) {
    status cursor run { id } } }"""
CHANGES = """subscription($after: String) { deploymentsChanged(after: $after) {
    status cursor run { id } deploymentId } }"""
LOG = """subscription($id: ID!, $after: String) { runLog(runId: $id, after: $after) {
    entries { sequence message } endCursor complete } }"""

BROKEN_SHARE = 4  # every fourth deployment is of a package that cannot come up
DOWN_SHARE, CANCEL_SHARE = 0.25, 0.12
LONGEST_PAUSE = 1.5  # seconds between two runs of a deployment


@dataclass
class Deployed:
    """A deployment.  `statuses` are those that its follower was told, each with the run's id."""

    id: str
    project: str
    host: Host
    is_broken: bool
    statuses: list[tuple[str, str | None]] = field(default_factory=list)


@dataclass
class Accepted:
    """A run that a node has accepted.  `entries` is what the follower of its log was told, `word` the host's own."""

    id: str
    deployed: Deployed
    action: str
    troubles: list[str] = field(default_factory=list)  # that came while it was active, by their kinds
    entries: list[tuple[int, str]] = field(default_factory=list)
    end: Json | None = None
    word: Word | None = None


@dataclass
class Traffic:
    """All runs, and those who follow them.  `seconds` is the longest that an `up` works."""

    api: Api
    seed: int
    seconds: float
    deployed: list[Deployed] = field(default_factory=list)
    runs: list[Accepted] = field(default_factory=list)
    changes: list[list[tuple[str, str, str | None]]] = field(default_factory=lambda: [[], []])
    is_over: bool = False

    async def prepare(self, hosts: list[Host], count: int) -> None:
        """Make so many deployments on each host."""
        random = Random(f"{self.seed} packages")
        for host in hosts:
            host_id = await self.api.ask(Client.ssh_host, host.sshd)
            for _ in range(count):
                number = len(self.deployed)
                is_broken = number % BROKEN_SHARE == BROKEN_SHARE - 1
                seconds = random.uniform(0.2, 1) * self.seconds
                compose = {
                    "web": {"image": "broken:1" if is_broken else "well:1", "command": ["work", f"{seconds:.1f}"]}
                }
                package = await self.api.ask(Client.package, compose)
                project = f"chaos-{number}"
                deployment = await self.api.ask(Client.deployment, host_id, package, project)
                self.deployed.append(Deployed(deployment, project, host, is_broken))

    @property
    def active(self) -> Iterator[Accepted]:
        """The runs that have not ended, as far as is known here."""
        return (run for run in self.runs if run.end is None)

    async def drive(self, deployed: Deployed) -> None:
        """Run the deployment again and again until `is_over`."""
        random = Random(f"{self.seed} {deployed.project}")
        while not self.is_over:
            await asyncio.sleep(random.uniform(0, LONGEST_PAUSE))
            action = "DOWN" if random.random() < DOWN_SHARE else "UP"
            run_id = await self.api.ask(_start, deployed.id, action, secrets.token_hex(8))
            run = Accepted(run_id, deployed, action)
            self.runs.append(run)
            is_canceled, delay = random.random() < CANCEL_SHARE, random.uniform(0, 2 + self.seconds)
            async with asyncio.TaskGroup() as group:
                cancel = group.create_task(self._cancel(run, delay)) if is_canceled else None
                await self._follow_log(run)
                if cancel is not None:
                    cancel.cancel()
            run.end = await self.api.ask(Client.run, run.id)
            run.word = deployed.host.word(deployed.project)

    async def follow_status(self, deployed: Deployed) -> None:
        async with aclosing(self.api.follow(STATUS, id=deployed.id)) as events:
            async for event in events:
                deployed.statuses.append((event["status"], _run_of(event)))

    async def follow_changes(self, seen: list[tuple[str, str, str | None]], after: str) -> None:
        async with aclosing(self.api.follow(CHANGES, after)) as events:
            async for event in events:
                seen += [(event["deploymentId"], event["status"], _run_of(event))]

    async def beginning(self) -> str:
        """The cursor of the first deployment's first status."""
        async with aclosing(self.api.follow(STATUS, id=self.deployed[0].id)) as events:
            return str((await anext(events))["cursor"])

    async def _follow_log(self, run: Accepted) -> None:
        """Return when the run has ended."""
        async with aclosing(self.api.follow(LOG, id=run.id)) as batches:
            async for batch in batches:
                run.entries += [(entry["sequence"], entry["message"]) for entry in batch["entries"]]
                if batch["complete"]:
                    return

    async def _cancel(self, run: Accepted, delay: float) -> None:
        await asyncio.sleep(delay)
        run.troubles.append("run canceled")
        await self.api.ask(Client.cancel, run.id)


async def _start(client: Client, deployment: str, action: str, key: str) -> str:
    """Start a run.  With its key, a node that is asked because another one's answer was lost gives the same run."""
    payload = await client.change(
        "runDeployment", "run { id }", deploymentId=deployment, action=action, idempotencyKey=key
    )
    return str(payload["run"]["id"])


def _run_of(event: Json) -> str | None:
    return event["run"]["id"] if event["run"] else None
