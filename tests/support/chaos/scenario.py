"""A time of trouble from its beginning to its end, and the report on it."""

import asyncio
import contextlib
import os
import secrets
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from db.encryption import Keyring
from tests.support.chaos import checks, host
from tests.support.chaos.checks import Tables
from tests.support.chaos.host import Host
from tests.support.chaos.nodes import Api, Doubles, Node
from tests.support.chaos.traffic import Accepted, Traffic
from tests.support.chaos.troubles import RUN_CANCELED, Extent, Troubles
from tests.support.postgres import Postgres, serve_postgres
from tests.support.server import Server

WORKERS, API_NODES, HOSTS = 3, 2, 2


@dataclass(frozen=True)
class Scale:
    """How much there is of everything; times in seconds."""

    seconds: float  # of troubles
    lease: float
    work: float  # the longest that an `up` works
    deployments: int  # on each host
    warm: bool
    extent: Extent
    patience: float  # for all runs to end when the troubles have
    tolerance: float = 0.5  # see Doubles


SHORT = Scale(
    seconds=18,
    lease=6,  # half of it is what a play needs to end
    work=2,
    deployments=3,
    warm=False,
    extent=Extent(gap=(1.5, 3.5), absence=(0.5, 4), freeze=(14, 16), outage=8),
    patience=90,
)
LONG = Scale(
    seconds=600,
    lease=12,
    work=8,
    deployments=6,
    warm=True,
    extent=Extent(gap=(4, 14), absence=(1, 30), freeze=(15, 45), outage=35),
    patience=240,
)


@dataclass
class Report:
    """What came, what became of the runs, and a sentence for each thing that is not as it has to be."""

    seed: int
    counts: Counter[str]
    runs: Sequence[Accepted]
    tables: Tables
    told: Sequence[str]
    seen: Sequence[str]
    faults: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return "\n".join(
            [f"seed {self.seed}", *self.seen, "", *self.table(), "", *(self.faults or ["nothing is wrong"])]
        )

    def table(self) -> Iterator[str]:
        yield "| trouble | times | runs hit | SUCCESS | FAILED | CANCELED | claimed again |"
        yield "| --- | --- | --- | --- | --- | --- | --- |"
        for kind, times in sorted(self.counts.items()):
            yield self._line(kind, str(times), [run for run in self.runs if kind in run.troubles])
        yield self._line("none of these", "", [run for run in self.runs if not run.troubles])
        yield self._line("all", str(self.counts.total()), self.runs)

    def _line(self, kind: str, times: str, runs: Sequence[Accepted]) -> str:
        ends = Counter(run.end["status"] if run.end else "none" for run in runs)
        reasons = Counter(run.end["reason"] for run in runs if run.end and run.end["status"] == "FAILED")
        why = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
        again = sum(self.tables.runs[run.id]["epoch"] > 1 for run in runs if run.id in self.tables.runs)
        return f"| {kind} | {times} | {len(runs)} | {ends['SUCCESS']} | {why or 0} | {ends['CANCELED']} | {again} |"


@dataclass
class Scene:
    """Everything that takes part."""

    scale: Scale
    seed: int
    postgres: Postgres
    url: str
    hosts: list[Host]
    api_nodes: list[Node]
    workers: list[Node]

    @property
    def nodes(self) -> list[Node]:
        return [*self.api_nodes, *self.workers]

    async def play(self) -> Report:
        """Let troubles come upon traffic, wait until all is calm again, stop the nodes, and look."""
        api = Api(self.api_nodes)
        traffic = Traffic(api, self.seed, self.scale.work)
        troubles = Troubles(
            self.workers, self.api_nodes, self.postgres, traffic, self.scale.extent, self.scale.warm, self.seed
        )
        doubles = Doubles(self.scale.tolerance, self.nodes)
        async with asyncio.TaskGroup() as group:
            beside = [
                *(group.create_task(node.keep(troubles.was_away), name=node.name) for node in self.nodes),
                group.create_task(doubles.watch(), name="doubles"),
            ]
            await self._until(lambda: all(node.is_up for node in self.nodes), 60)
            await traffic.prepare(self.hosts, self.scale.deployments)
            beginning = await traffic.beginning()
            beside += [group.create_task(traffic.follow_status(each)) for each in traffic.deployed]
            beside += [group.create_task(traffic.follow_changes(seen, beginning)) for seen in traffic.changes]
            await self._until(lambda: all(each.statuses for each in traffic.deployed), 15)
            driving = [group.create_task(traffic.drive(each), name=each.project) for each in traffic.deployed]
            await troubles.make(self.scale.seconds)
            traffic.is_over = True
            _, late = await asyncio.wait(driving, timeout=self.scale.patience)
            faults = await self._calm(traffic)
            for task in [*late, *beside]:
                task.cancel()
        await api.close()
        faults += await self._stop()
        return self._report(traffic, troubles, doubles, faults)

    async def _calm(self, traffic: Traffic) -> list[str]:
        """Wait until all is done and told; what is still at work then is a fault."""
        await self._until(lambda: all(node.is_well for node in self.nodes), 90)
        tables = await asyncio.to_thread(Tables.read, self.url)
        count = len(tables.events) - 1
        await self._until(lambda: all(len(seen) >= count for seen in traffic.changes), 15)
        await self._until(lambda: sum(len(each.statuses) for each in traffic.deployed) > count, 15)
        left = await asyncio.to_thread(checks.settled, lambda: checks.at_work(self.nodes, self.hosts), 15)
        left += await asyncio.to_thread(checks.settled, self._jobs, 40)
        return [f"not at rest: {what}" for what in left]

    def _jobs(self) -> list[str]:
        jobs = Tables.read(self.url).jobs
        return [f"{jobs} jobs in the queue"] if jobs else []

    async def _until(self, condition: Callable[[], bool], seconds: float) -> None:
        """Return when it holds, or when the time is up; what that means is for the checks to say."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not condition():  # noqa: ASYNC110 - many things make it hold
                    await asyncio.sleep(0.05)

    async def _stop(self) -> list[str]:
        """Stop all nodes politely."""
        faults = [fault for node in self.nodes for fault in node.faults]
        statuses = await asyncio.gather(*(asyncio.to_thread(_stop, node) for node in self.nodes))
        faults += [
            f"{node.name} has not ended politely: {'not at all' if status is None else status}"
            for node, status in zip(self.nodes, statuses, strict=True)
            if status != 0
        ]
        left = await asyncio.to_thread(checks.settled, lambda: checks.remains(self.nodes, self.hosts), 15)
        return [*faults, *(f"left: {what}" for what in left)]

    def _report(self, traffic: Traffic, troubles: Troubles, doubles: Doubles, faults: list[str]) -> Report:
        tables, runs = Tables.read(self.url), traffic.runs
        counts = troubles.counts + Counter({RUN_CANCELED: sum(RUN_CANCELED in run.troubles for run in runs)})
        journal = Counter(event["event"] for host in self.hosts for event in host.journal())
        seen = [
            f"{len(runs)} runs of {len(traffic.deployed)} deployments on {len(self.hosts)} hosts, "
            f"{sum(row['epoch'] for row in tables.runs.values())} claims",
            f"executions on the hosts: {journal['begin']} begun, {journal['done']} done, {journal['failed']} failed, "
            f"{journal['begin'] - journal['done'] - journal['failed']} killed, {journal['overlap']} overlaps; "
            f"{doubles.looks} looks found {len(doubles.found)} runs that two workers played at once",
            f"followers: {sum(len(run.entries) for run in runs)} log entries, "
            f"{sum(len(each.statuses) for each in traffic.deployed)} statuses, "
            f"{sum(map(len, traffic.changes))} changes; {traffic.api.lost} times they went on at another node",
        ]
        faults = [
            *faults,
            *checks.untrue_ends(runs, tables),
            *checks.overlaps(self.hosts),
            *(f"run {run} was played by two workers at the same time" for run in sorted(doubles.found)),
            *checks.untold(traffic.deployed, runs, traffic.changes, tables),
            *checks.unexpected_words(self.nodes, troubles.outages),
        ]
        return Report(self.seed, counts, runs, tables, troubles.told, seen, faults)


def _stop(node: Node) -> int | None:
    """Its exit status, None where it had to be killed."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        return node.server.stop() if node.server.exit_status is None else 0
    node.server.kill()
    return None


@contextlib.contextmanager
def staged(scale: Scale, seed: int, directory: Path) -> Iterator[Scene]:
    """The hosts, the database, and the nodes, which are not started yet; all is gone afterwards."""
    with contextlib.ExitStack() as stack:
        postgres = stack.enter_context(serve_postgres(remembers=True))
        url = stack.enter_context(postgres.new_database())
        hosts = [
            stack.enter_context(host.served(directory / f"host-{number}", f"127.0.9.{number}"))
            for number in range(1, HOSTS + 1)
        ]
        settings = {
            "DAOS_DATABASE_URL": url,
            "DAOS_ADMIN_TOKEN": secrets.token_urlsafe(16),
            "DAOS_LEASE": str(scale.lease),
            "DAOS_LOG_FORMAT": "json",
            "DAOS_MAX_RUNS": "4",
            "DAOS_SETTLE_SECONDS": "0.3",
            "DAOS_SHUTDOWN_GRACE": "1",
            "DAOS_WARM": str(scale.warm).lower(),
        }
        # Not measured: many of them are killed, and would lose what they had measured.
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("DAOS_", "COVERAGE_"))}

        key = directory / "secret-key"  # one for all nodes
        Keyring.open(key)

        def node(name: str, role: str, **own: str) -> Node:
            server = Server(directory / name.replace(" ", "-"), {**settings, **own}, environment=environment, role=role)
            server.data_dir.mkdir(parents=True)
            shutil.copy(key, server.data_dir)
            stack.callback(server.close)
            return Node(name, server)

        api = [node(f"api {number}", "serve", DAOS_PLAY="false") for number in range(1, API_NODES + 1)]
        workers = [node(f"worker {number}", "worker") for number in range(1, WORKERS + 1)]
        yield Scene(scale, seed, postgres, url, hosts, api, workers)
