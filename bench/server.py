"""Measures a server with eight runs at the same time: the latency of the first log entry, idle resources, and leaks.

first entry   from the response of `runDeployment` to the first entry of `runLog`, which is subscribed to with the run's
              id: unchanged deployments, eight at a time, the next one when one has ended
idle          after those runs, the resources of the server, the warm process, and all other child processes: memory as
              PSS, which counts a shared page once, and CPU time by a cgroup
left          processes, including those of sshd and on the host, files, sockets, and descriptors that were not there
              before, after many runs, eight at a time, of which some are canceled, while the warm process is killed at
              random moments
untrue        runs among these whose result differs from what Docker shows, or whose work or files are still there

All of it through the API, with one sshd on this machine and its Docker.
"""

import argparse
import asyncio
import contextlib
import json
import math
import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

from websockets.asyncio.client import ClientConnection

from tests.support.bench import AT_ONCE, COMPOSE_FILE, Meter, Site, opened
from tests.support.client import Client
from tests.support.remains import Place
from tests.support.server import Server
from tests.support.turmoil import Turmoil

CALM = 10.0  # seconds after the last run before the server counts as idle
PATIENCE = 90.0  # seconds for leftovers to disappear: SSH control masters persist for a minute
WATCH = "subscription($id: ID!) { runLog(runId: $id) { entries { sequence } complete } }"
VARIABLES = [{"name": "VALUE", "value": "1"}]


@dataclass(frozen=True)
class Figure:
    """A row of the table, and the notes below it."""

    name: str
    measured: float
    target: float
    unit: str = ""
    details: Sequence[str] = ()

    @property
    def met(self) -> bool:
        return self.measured <= self.target

    def __str__(self) -> str:
        met = "met" if self.met else "missed"
        return f"| {self.name} | {self.measured:.3g}{self.unit} | <= {self.target:g}{self.unit} | {met} |"


async def measure(site: Site, parsed: argparse.Namespace) -> list[Figure]:
    """Measure all figures, in the order of the table."""
    with contextlib.ExitStack() as stack:
        meter = Meter("server")
        stack.callback(meter.close)
        server = site.server(meter, {"TMPDIR": str(site.temporary)})
        projects = site.projects("server", AT_ONCE)
        for project in projects:
            stack.callback(site.docker.remove_project, project)
        stack.callback(server.close)
        server.start()
        await asyncio.to_thread(server.wait_until_warm)
        async with _connected(server) as client:
            host, package = await client.ssh_host(site.sshd), await client.package(COMPOSE_FILE)
            deployments = {name: await client.deployment(host, package, name, VARIABLES) for name in projects}
            for _ in range(2):  # creates the containers, pins the host key, and opens a persistent connection
                await asyncio.gather(*(client.play(deployment) for deployment in deployments.values()))
            first_entry = await measure_first_entry(client, list(deployments.values()), parsed.samples)
        await asyncio.sleep(CALM)
        idle = await measure_idle(meter, parsed.idle)
        place = Place(server, site.sshd, projects, [site.temporary])
        left = await measure_leftovers(place, site, deployments, parsed)
        await asyncio.sleep(CALM)
        return [first_entry, *idle, *left, Figure("memory when idle again", _memory(meter), 200, " MiB")]


async def measure_first_entry(client: Client, deployments: list[str], samples: int) -> Figure:
    """Measure the time until a client receives a run's first log entry, with a run of every deployment in progress."""
    numbers = iter(range(samples))
    answers, waits = list[float](), list[float]()

    async def play(deployment: str) -> None:
        async with client.connected() as socket:
            for number in numbers:
                asked = time.perf_counter()
                run_id = await client.start(deployment)
                accepted = time.perf_counter()
                events = _entries(socket, run_id, str(number))
                await anext(events)
                answers.append(accepted - asked)
                waits.append(time.perf_counter() - accepted)
                async for _ in events:  # until the run has ended
                    pass
                assert (await client.run(run_id))["status"] == "SUCCESS"

    await asyncio.gather(*map(play, deployments))
    return Figure(
        f"accepted to first log entry, p95 of {len(waits)}, {len(deployments)} running",
        _percentile(waits, 95),
        0.3,
        " s",
        [
            f"{name}: p50 {_percentile(values, 50):.3f} s, p95 {_percentile(values, 95):.3f} s"
            for name, values in (("asked to accepted", answers), ("accepted to first log entry", waits))
        ],
    )


def _percentile(values: Sequence[float], percent: int) -> float:
    return sorted(values)[math.ceil(percent / 100 * len(values)) - 1]


async def _entries(socket: ClientConnection, run_id: str, operation: str) -> AsyncIterator[int]:
    """Yield the number of log entries in each event of the run's log, until its end."""
    payload = {"query": WATCH, "variables": {"id": run_id}}
    await socket.send(json.dumps({"id": operation, "type": "subscribe", "payload": payload}))
    async for text in socket:
        message = json.loads(text)
        if message["type"] == "ping":
            await socket.send(json.dumps({"type": "pong"}))
        elif message["id"] == operation:
            if message["type"] == "complete":
                return
            assert message["type"] == "next", message
            if entries := message["payload"]["data"]["runLog"]["entries"]:
                yield len(entries)


async def measure_idle(meter: Meter, seconds: float) -> list[Figure]:
    """Measure the resources of the idle server for so many seconds."""
    before = meter.seconds
    await asyncio.sleep(seconds)
    cpu = 100 * (meter.seconds - before) / seconds
    return [
        Figure("idle: memory, of all its processes", _memory(meter), 200, " MiB"),
        Figure(f"idle: processor, for {seconds:g} s", cpu, 1, " %"),
    ]


def _memory(meter: Meter) -> float:
    """Return the MiB of the meter's processes; a shared page is counted once."""
    rollups = [Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in meter.processes]
    return sum(int(line.split()[1]) for rollup in rollups for line in rollup.splitlines() if "Pss:" in line) / 1024


async def measure_leftovers(
    place: Place, site: Site, deployments: dict[str, str], parsed: argparse.Namespace
) -> list[Figure]:
    """Measure what is left over, and which runs have a wrong result."""
    before = place.remains()
    async with _connected(place.server) as client:
        turmoil = Turmoil(place, client, site.docker, deployments, Random())  # noqa: S311
        await turmoil.play(parsed.runs, parsed.cancels, parsed.kills)
    left = await asyncio.to_thread(place.left, before, PATIENCE)
    told = ", ".join(f"{count} {status}" for status, count in sorted(turmoil.statuses.items()))
    return [
        Figure(
            f"left by {parsed.runs} runs, {parsed.cancels} canceled, {turmoil.kills} warm processes killed",
            left.total(),
            0,
            details=[f"runs: {told}", *(f"left: {count} {name}" for name, count in sorted(left.items()))],
        ),
        Figure("untrue or unclean ends of these", len(turmoil.wrong), 0, details=turmoil.wrong),
    ]


@asynccontextmanager
async def _connected(server: Server) -> AsyncIterator[Client]:
    client = Client(server)
    try:
        yield client
    finally:
        await client.close()


def main() -> None:
    """Measure, print, and exit with status 1 if a target is missed."""
    parser = argparse.ArgumentParser(
        prog="scripts/bench server", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=240, help="runs whose first entry is waited for [240]")
    parser.add_argument("--idle", type=float, default=30.0, help="seconds of idleness [30]")
    parser.add_argument("--runs", type=int, default=300, help="runs that may leave something [300]")
    parser.add_argument("--cancels", type=int, default=30, help="of these that are canceled [30]")
    parser.add_argument("--kills", type=int, default=10, help="of the warm process, meanwhile [10]")
    parsed = parser.parse_args()
    loads = [os.getloadavg()[0]]
    with opened() as site:
        figures = asyncio.run(measure(site, parsed))
    loads.append(os.getloadavg()[0])
    print("| figure | measured | target | |\n|---|---|---|---|", *figures, sep="\n")
    print(*(detail for figure in figures for detail in figure.details), sep="\n")
    print(f"load of the machine: {loads[0]:.1f} before, {loads[1]:.1f} after")
    raise SystemExit(not all(figure.met for figure in figures))


if __name__ == "__main__":
    main()
