"""Measures the latency of the queue, the spread of a log among subscribers, and the statements of an idle worker.

start         from the acceptance of a run to its claim, one run after the other on an idle server, by its row
slot          from the end of a run to the claim of the next one in its slot, with 500 runs in the queue, by rows
followers     WebSockets on two nodes subscribe to one run with 100 log entries a second: the delay between the first
              and the last subscriber that receives an entry, and how many did not receive each entry once and in order
idle          statements that PostgreSQL executes for one idle worker, without BEGIN and the like

embedded is one `daos serve` with SQLite; distributed is two `daos serve` that play no runs and one `daos worker` with
PostgreSQL.  The runs end before Ansible starts, because the SSH key of their host is missing: only the queue is
measured.
"""

# Longer than 300 lines: one measurement, with its load, its limit, and its report.

import argparse
import asyncio
import contextlib
import json
import math
import os
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
from sqlalchemy import select

from db import status
from db.broadcast import Broadcast
from db.database import Database, sqlite_url
from db.encryption import Keyring
from db.models import Run, RunAction, RunStatus
from db.notify import Wire
from runner.mask import Mask
from runner.record import Recorder
from tests import factories
from tests.support.client import Client
from tests.support.postgres import serve_postgres
from tests.support.server import Server

SLOTS = 8  # runs at the same time
HOSTS = 100  # enough that none reaches its limit
AT_ONCE = 20  # requests
MORE = 250  # runs that are played while the others wait
CALM = 3.0  # seconds after which a server that has just started is idle
RATE = 100  # log entries a second
FRAMES = ("BEGIN%", "COMMIT%", "ROLLBACK%")  # statements around others
ALL = 100  # per cent
COMPOSE_FILE = "services: {web: {image: 'demo:1'}}"


@dataclass(frozen=True)
class Figure:
    """A row of the table."""

    name: str
    values: Sequence[float]
    percent: int  # the percentile that is compared with the goal
    goal: float
    unit: str = " ms"

    @property
    def met(self) -> bool:
        return _percentile(self.values, self.percent) <= self.goal

    def __str__(self) -> str:
        shown = " | ".join(f"{_percentile(self.values, percent):.3g}{self.unit}" for percent in (50, 95, ALL))
        which = "max" if self.percent == ALL else f"p{self.percent}"
        goal = f"{which} <= {self.goal:g}{self.unit}"
        return f"| {self.name} | {len(self.values)} | {shown} | {goal} | {'met' if self.met else 'missed'} |"


def _percentile(values: Sequence[float], percent: int) -> float:
    return sorted(values)[math.ceil(percent / 100 * len(values)) - 1]


@dataclass
class Nodes:
    """The daos processes of one database: API nodes, and one that plays runs, which may be one of them."""

    directory: Path
    url: str
    answering: list[Server]
    playing: Server
    settings: dict[str, str] = field(default_factory=dict)

    @classmethod
    def make(cls, directory: Path, url: str, more: Mapping[str, str] | None = None) -> "Nodes":
        settings = {
            "DAOS_DATABASE_URL": url,
            "DAOS_ADMIN_TOKEN": secrets.token_urlsafe(),
            "DAOS_WARM": "false",
            "DAOS_MAX_RUNS": str(SLOTS),
            "DAOS_LOG_LEVEL": "warning",
            **(more or {}),
        }
        if url.startswith("sqlite"):
            server = Server(directory / "server", settings)
            return cls(directory, url, [server], server, settings)
        answering = [Server(directory / f"api-{number}", {**settings, "DAOS_PLAY": "false"}) for number in range(2)]
        return cls(directory, url, answering, Server(directory / "worker", settings, role="worker"), settings)

    @property
    def is_embedded(self) -> bool:
        return self.playing in self.answering

    def start(self, server: Server) -> None:
        """Start another process; all share one keyring."""
        key = self.answering[0].data_dir / "secret-key"
        if key.exists() and server is not self.answering[0]:
            server.data_dir.mkdir(parents=True, exist_ok=True)
            shutil.copy(key, server.data_dir)
        server.start()

    def close(self) -> None:
        for server in (self.playing, *self.answering):
            server.close()

    @asynccontextmanager
    async def database(self) -> AsyncIterator[Database]:
        keyring = Keyring.open(self.answering[0].data_dir / "secret-key")
        async with factories.database(self.url, keyring) as db:
            yield db

    @asynccontextmanager
    async def clients(self) -> AsyncIterator[list[Client]]:
        """Return a client of each API node."""
        made = [Client(server) for server in self.answering]
        try:
            yield made
        finally:
            for client in made:
                await client.close()


@contextmanager
def opened(url: str, more: Mapping[str, str] | None = None) -> Iterator[Nodes]:
    """Return the nodes of a database, with the API nodes started."""
    with tempfile.TemporaryDirectory(prefix="db-", dir="/dev/shm") as name:
        nodes = Nodes.make(Path(name), url or sqlite_url(Path(name, "daos.db")), more)
        try:
            for server in nodes.answering:
                nodes.start(server)
            yield nodes
        finally:
            nodes.close()


async def measure_start(nodes: Nodes, samples: int) -> list[float]:
    """Return the milliseconds from acceptance to claim of runs, each started when the previous one has ended."""
    async with nodes.clients() as clients, nodes.database() as db:
        [*deployments] = await _deployments(clients[0], 10)
        await asyncio.sleep(CALM)
        for number in range(samples):
            client = clients[number % len(clients)]
            run_id = await client.start(deployments[number % len(deployments)])
            await client.end_of(run_id)
        async with db.read() as session:
            rows = await session.execute(select(Run.queued_at, Run.started_at).order_by(Run.id))
            return [_milliseconds(started - queued) for queued, started in rows if started is not None]


async def measure_slot(nodes: Nodes, waiting: int) -> tuple[list[float], str]:
    """Return the milliseconds from a run's end to the next claim, with a full queue, and the cost per run."""
    async with nodes.clients() as clients, nodes.database() as db:
        deployments = await _deployments(clients[0], waiting + MORE)
        if nodes.is_embedded:
            async with db.write() as session:  # all at one moment: the server plays at once what it is asked for
                for deployment_id in deployments:
                    await status.start(session, UUID(deployment_id), RunAction.UP)
        else:
            for first in range(0, len(deployments), 100):
                some = deployments[first : first + 100]
                await clients[0].change("runDeployments", "__typename", deploymentIds=some)
            await asyncio.to_thread(nodes.start, nodes.playing)
        before = _used(nodes.playing.pid)
        while True:
            async with db.read() as session:
                times = (await session.execute(select(Run.started_at, Run.finished_at))).all()
            if all(finished is not None for _, finished in times):
                break
            await asyncio.sleep(0.5)
    cost = 1000 * (_used(nodes.playing.pid) - before) / len(times)
    begun = sorted(started for started, _ in times if started is not None)
    ended = sorted(finished for _, finished in times if finished is not None)
    # The first claim that is not of a slot which was free from the start fills that of the first run that has ended.
    waits = [_milliseconds(begun[number] - ended[number - SLOTS]) for number in range(SLOTS, MORE)]
    took = (ended[MORE] - begun[0]).total_seconds() / MORE
    return waits, f"a run costs {cost:.0f} ms of the processor, and one began every {1000 * took:.0f} ms"


async def _deployments(client: Client, count: int) -> list[str]:
    """Create deployments whose runs end immediately."""
    room = asyncio.Semaphore(AT_ONCE)

    async def host(number: int) -> str:
        values = {"name": f"host-{number}", "address": "127.0.0.1", "user": "nobody", "sshKeyPath": "/nowhere/key"}
        async with room:
            return str((await client.change("createHost", "host { id }", **values))["host"]["id"])

    async def deployment(number: int) -> str:
        async with room:
            return await client.deployment(hosts[number % len(hosts)], package, f"queue-{number}")

    package = await client.package(COMPOSE_FILE)
    hosts = await asyncio.gather(*map(host, range(HOSTS)))
    return await asyncio.gather(*map(deployment, range(count)))


def _milliseconds(time: timedelta) -> float:
    return 1000 * time.total_seconds()


async def measure_followers(nodes: Nodes, count: int, seconds: float) -> tuple[list[float], int, list[str]]:
    """Return, by entry, the milliseconds from the first to the last subscriber, the number of faulty ones, details."""
    async with nodes.database() as db, _recorded(db) as (run_id, recorder):
        processes = [await _follow(server, run_id, count // len(nodes.answering)) for server in nodes.answering]
        for process in processes:
            assert process.stdout is not None
            assert (await process.stdout.readline()).strip() == b"ready", nodes.answering[0].log
        used = {"node": [server.pid for server in nodes.answering], "clients": [process.pid for process in processes]}
        before = {name: [_used(pid) for pid in pids] for name, pids in used.items()}
        beginning = time.monotonic()
        for number in range(int(RATE * seconds)):
            await asyncio.sleep(max(0.0, beginning + number / RATE - time.monotonic()))
            recorder.log(f"Container web-{number} Started, which is about as long as a line of compose's usually is.")
        details = [
            f"processor of {name}, while entries came: {_used(pid) - earlier:.1f} s in {seconds:g} s"
            for name, pids in used.items()
            for pid, earlier in zip(pids, before[name], strict=True)
        ]
    results: list[dict[str, Any]] = []
    for process in processes:
        assert process.stdout is not None
        results.append(json.loads(await process.stdout.read()))
        await process.wait()
    sequences = [str(number) for number in range(2, int(RATE * seconds) + 2)]
    spreads = [
        1000 * (max(one["last"][number] for one in results) - min(one["first"][number] for one in results))
        for number in sequences
        if all(number in one["last"] for one in results)
    ]
    assert len(spreads) == len(sequences), f"only {len(spreads)} of {len(sequences)} entries have come"
    return spreads, sum(one["wrong"] for one in results), details


def _used(pid: int) -> float:
    """Return the CPU seconds that a process has used."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


@asynccontextmanager
async def _recorded(db: Database) -> AsyncIterator[tuple[UUID, Recorder]]:
    """Create a run that looks as if this process played it; it ends with the block."""
    broadcast = Broadcast()
    wire = asyncio.create_task(Wire(db, broadcast).serve())
    run = await factories.run(db, to=RunStatus.RUNNING)
    recorder = Recorder(db, broadcast, run, 0, Mask())
    recording = asyncio.create_task(recorder.write())
    recorder.log("The run begins.")
    try:
        yield run.id, recorder
    finally:
        recorder.close()
        await recording
        async with db.write() as session:
            await status.finish(session, run.id, run.epoch, factories.end())
        broadcast.notify(run.id)
        wire.cancel()  # sends the remaining notifications first
        await asyncio.wait({wire})


async def _follow(server: Server, run_id: UUID, count: int) -> asyncio.subprocess.Process:
    url = f"{server.url.replace('http', 'ws', 1)}/graphql"
    command = [sys.executable, "-m", "bench.subscribers", url, server.settings["DAOS_ADMIN_TOKEN"], str(run_id)]
    return await asyncio.create_subprocess_exec(*command, str(count), stdout=asyncio.subprocess.PIPE, limit=2**26)


async def measure_idle(nodes: Nodes, seconds: float) -> tuple[float, list[tuple[str, int]]]:
    """Return the statements per second of a worker that is alone with its database, and their counts."""
    await asyncio.to_thread(nodes.start, nodes.playing)
    for server in nodes.answering:
        await asyncio.to_thread(server.stop)
    await asyncio.sleep(CALM)
    with psycopg.connect(nodes.url, autocommit=True) as connection:
        connection.execute("CREATE EXTENSION pg_stat_statements")
        connection.execute("SELECT pg_stat_statements_reset()")
        await asyncio.sleep(seconds)
        found = connection.execute(
            "SELECT query, calls FROM pg_stat_statements WHERE query NOT LIKE '%%pg_stat_statements%%'"
            " AND NOT query LIKE ANY (%s) AND dbid = (SELECT oid FROM pg_database WHERE datname = current_database())"
            " ORDER BY calls DESC",
            [list(FRAMES)],
        ).fetchall()
    return sum(calls for _, calls in found) / seconds, [(" ".join(query.split())[:90], calls) for query, calls in found]


def main() -> None:
    """Measure, print, and exit with status 1 if a goal is missed."""
    parser = argparse.ArgumentParser(
        prog="scripts/bench queue", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=200, help="runs that are started on an idle server [200]")
    parser.add_argument("--waiting", type=int, default=500, help="runs that wait behind those that are played [500]")
    parser.add_argument("--followers", type=int, default=1000, help="websockets that follow a run [1000]")
    parser.add_argument("--seconds", type=float, default=10.0, help="for which it has entries [10]")
    parser.add_argument("--idle", type=float, default=60.0, help="seconds of idleness [60]")
    parser.add_argument(
        "--only", nargs="+", choices=["start", "slot", "followers", "idle"], help="what is measured [all of it]"
    )
    parsed = parser.parse_args()
    loads = [os.getloadavg()[0]]
    with serve_postgres("shared_preload_libraries=pg_stat_statements") as postgres, contextlib.ExitStack() as stack:

        def database() -> str:
            return stack.enter_context(postgres.new_database())

        figures, details = measure(parsed, database)
    loads.append(os.getloadavg()[0])
    print("| figure | values | median | p95 | max | goal | |\n|---|---|---|---|---|---|---|", *figures, sep="\n")
    print(*details, sep="\n")
    print(f"load of the machine: {loads[0]:.1f} before, {loads[1]:.1f} after")
    raise SystemExit(not all(figure.met for figure in figures))


def measure(parsed: argparse.Namespace, database: Any) -> tuple[list[Figure], list[str]]:
    """Return the rows of the table, and the notes below it."""
    figures, details = list[Figure](), list[str]()
    wanted = parsed.only or ["start", "slot", "followers", "idle"]
    for name, make in (("embedded", str), ("distributed", database)):
        if "start" in wanted:
            with opened(make()) as nodes:
                if not nodes.is_embedded:
                    nodes.start(nodes.playing)
                values = asyncio.run(measure_start(nodes, parsed.samples))
            figures.append(Figure(f"accepted to started, {name}, idle", values, 95, 50))
        if "slot" in wanted:
            with opened(make()) as nodes:
                values, cost = asyncio.run(measure_slot(nodes, parsed.waiting))
            details.append(f"{name}, {parsed.waiting} waiting: {cost}")
            figures.append(Figure(f"free slot to next start, {name}, {parsed.waiting} waiting", values, 95, 100))
    if "followers" in wanted:
        more = {"DAOS_MAX_CONNECTIONS": "5000", "DAOS_MAX_STREAMS": "5000"}
        with opened(database(), more) as nodes:
            values, wrong, more_of_it = asyncio.run(measure_followers(nodes, parsed.followers, parsed.seconds))
        figures.append(Figure(f"first to last of {parsed.followers} followers, by entry", values, ALL, 500))
        figures.append(Figure("followers without each entry once and in order", [wrong], ALL, 0, ""))
        details += more_of_it
    if "idle" in wanted:
        with opened(database()) as nodes:
            rate, statements = asyncio.run(measure_idle(nodes, parsed.idle))
        figures.append(Figure("statements a second of an idle worker", [rate], ALL, 2, ""))
        details += [f"{calls} in {parsed.idle:g} s: {text}" for text, calls in statements]
    return figures, details


if __name__ == "__main__":
    main()
