"""Compares three ways to deploy: the lower limit, daos, and `ansible-playbook` with a typical role.

limit    one ssh with ControlPersist: `tar | docker compose up --detach --wait`; nothing can deploy with less
daos     through its API: from the mutation to the SUCCESS event on a WebSocket
plain    one `ansible-playbook` for each deployment, with bench/plain: facts, file, copy, template, command

All use one sshd on this machine and its Docker, with as many deployments at the same time as daos plays (8).  In a
round each takes its turn, first with a change in the project's variables, then without.  Compose waits half a second,
so daos' DAOS_SETTLE_SECONDS is the same.  CPU is the time of the controller's processes, measured by a cgroup: not of
sshd, Docker, and what runs on the host, which are common to all.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import shlex
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.support.bench import AT_ONCE, COMPOSE_FILE, Meter, Site, opened
from tests.support.client import Client
from tests.support.server import wait_until

PLAIN = Path(__file__).with_name("plain")


@dataclass(frozen=True)
class Figure:
    """The times of one turn."""

    wall: float  # seconds
    cpu: float  # seconds


class Limit:
    """One ssh for each deployment."""

    def __init__(self, site: Site, meter: Meter) -> None:
        self._site = site
        self._meter = meter

    async def prepare(self, count: int, value: str) -> None:
        for project in self._site.projects("limit", count):
            place = self._site.directory / project
            place.mkdir(exist_ok=True)
            (place / "compose.yaml").write_text(COMPOSE_FILE)
            (place / ".env").write_text(f"VALUE={value}\n")

    async def deploy(self, count: int) -> None:
        await _at_once(self._one(project) for project in self._site.projects("limit", count))

    async def _one(self, project: str) -> None:
        site, sshd = self._site, self._site.sshd
        there = f"/tmp/daos-bench/{project}"  # noqa: S108
        up = f"docker compose --project-name {project} up --detach --wait --remove-orphans"
        ssh = ["ssh", *site.ssh, "-i", str(sshd.key_path), "-p", str(sshd.port), f"{sshd.user}@{sshd.address}"]
        remote = f"mkdir -p {there} && cd {there} && tar x && {up}"
        local = f"tar c -C {site.directory / project} . | {shlex.join([*ssh, remote])}"
        await _run(self._meter.inside(["sh", "-c", local]))


class Plain:
    """One `ansible-playbook` for each deployment."""

    def __init__(self, site: Site, meter: Meter) -> None:
        self._site = site
        self._meter = meter
        self._value = ""

    async def prepare(self, count: int, value: str) -> None:
        sshd = self._site.sshd
        variables = {
            "ansible_host": sshd.address,
            "ansible_port": sshd.port,
            "ansible_user": sshd.user,
            "ansible_ssh_private_key_file": str(sshd.key_path),
            "ansible_ssh_common_args": f"-F none -o UserKnownHostsFile={self._site.directory}/known_hosts",
            "ansible_python_interpreter": "/usr/bin/python3",
            "compose_file": COMPOSE_FILE,
            "value": value,
        }
        for project in self._site.projects("plain", count):
            inventory = {"all": {"hosts": {project: {**variables, "project": project}}}}
            (self._site.directory / f"{project}.json").write_text(json.dumps(inventory))

    async def deploy(self, count: int) -> None:
        await _at_once(self._one(project) for project in self._site.projects("plain", count))

    async def _one(self, project: str) -> None:
        inventory = str(self._site.directory / f"{project}.json")
        command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", inventory, str(PLAIN / "site.yml")]
        await _run(self._meter.inside(command))


class Daos:
    """The daos server, through its API."""

    def __init__(self, site: Site, meter: Meter, settings: Mapping[str, str]) -> None:
        self._site = site
        self._server = site.server(meter, settings)
        self._deployments: list[str] = []

    async def start(self) -> None:
        self._server.start()
        self.client = Client(self._server)
        self._host = await self.client.ssh_host(self._site.sshd)
        self._package = await self.client.package(COMPOSE_FILE)
        if self._server.settings.get("DAOS_WARM") != "false":
            wait_until(lambda: "plays go" in self._server.log, "it is known which way plays go", 60)

    async def prepare(self, count: int, value: str) -> None:
        for deployment in self._deployments:
            await self.client.change("deleteDeployment", "__typename", deploymentId=deployment)
        variables = [{"name": "VALUE", "value": value}]
        self._deployments = [
            await self.client.deployment(self._host, self._package, project, variables)
            for project in self._site.projects("daos", count)
        ]

    async def deploy(self, count: int) -> None:
        document = "subscription { deploymentsChanged { deploymentId status } }"
        async with self.client.subscribe(document) as events:
            waiting = set(self._deployments[:count])
            await asyncio.gather(*(self.client.start(deployment) for deployment in waiting))
            async for event in events:
                change = event["deploymentsChanged"]
                assert change["status"] != "FAILED", (change, self._server.log)
                if change["status"] == "SUCCESS":
                    waiting.discard(change["deploymentId"])
                if not waiting:
                    return

    async def close(self) -> None:
        await self.client.close()
        self._server.close()


async def _at_once(tasks: Iterator[Awaitable[None]]) -> None:
    room = asyncio.Semaphore(AT_ONCE)

    async def one(task: Awaitable[None]) -> None:
        async with room:
            await task

    await asyncio.gather(*(one(task) for task in tasks))


async def _run(command: list[str]) -> None:
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()


async def _measure(meter: Meter, action: Callable[[], Awaitable[None]]) -> Figure:
    cpu, wall = meter.seconds, time.perf_counter()
    await action()
    return Figure(time.perf_counter() - wall, meter.seconds - cpu)


async def measure(site: Site, parsed: argparse.Namespace) -> dict[tuple[str, int, str], list[Figure]]:
    """Return the figures of all rounds, by way, count, and whether something had changed."""
    figures: dict[tuple[str, int, str], list[Figure]] = defaultdict(list)
    with contextlib.ExitStack() as stack:
        meters = {way: Meter(way) for way in ("limit", "daos", "plain")}
        for meter in meters.values():
            stack.callback(meter.close)
        daos = Daos(site, meters["daos"], {"DAOS_WARM": "false"} if parsed.cold else {})
        ways: dict[str, Limit | Daos | Plain] = {"limit": Limit(site, meters["limit"]), "daos": daos}
        if not parsed.no_plain:
            ways["plain"] = Plain(site, meters["plain"])
        await daos.start()
        try:
            values = (str(number) for number in itertools.count())
            for count in parsed.counts:
                for round_number in range(-1, parsed.rounds):  # the first one is not counted: it creates the containers
                    for way, deployer in ways.items():
                        await deployer.prepare(count, next(values))
                        for kind in ("changed", "unchanged"):
                            figure = await _measure(meters[way], partial(deployer.deploy, count))
                            if round_number >= 0:
                                figures[way, count, kind].append(figure)
        finally:
            await daos.close()
            for project in (name for way in ways for name in site.projects(way, max(parsed.counts))):
                site.docker.remove_project(project)
    return figures


def table(figures: Mapping[tuple[str, int, str], list[Figure]], counts: list[int]) -> str:
    """Return the medians, and their ratios to the limit and to daos."""
    lines = [
        "| deployments | | limit | daos | plain | daos / limit | plain / daos | CPU s each: limit | daos | plain |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for count, kind in itertools.product(counts, ("changed", "unchanged")):
        wall, cpu = {}, {}
        for way in ("limit", "daos", "plain"):
            measured = figures.get((way, count, kind), [Figure(float("nan"), float("nan"))])
            wall[way] = statistics.median(figure.wall for figure in measured)
            cpu[way] = statistics.median(figure.cpu for figure in measured) / count
        lines.append(
            f"| {count} | {kind} | {wall['limit']:.2f} s | {wall['daos']:.2f} s | {wall['plain']:.2f} s "
            f"| {wall['daos'] / wall['limit']:.2f} | {wall['plain'] / wall['daos']:.1f} "
            f"| {cpu['limit']:.2f} | {cpu['daos']:.2f} | {cpu['plain']:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench run", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="rounds that count [5]")
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 10, 50], help="deployments at a time [1 10 50]")
    parser.add_argument("--no-docker", action="store_true", help="docker on the host does nothing, at once")
    parser.add_argument(
        "--no-plain", action="store_true", help="without ansible-playbook, which takes most of the time"
    )
    parser.add_argument("--cold", action="store_true", help="daos starts Ansible anew for each run")
    parsed = parser.parse_args()
    with opened(no_docker=parsed.no_docker) as site:
        figures = asyncio.run(measure(site, parsed))
        print(table(figures, parsed.counts))


if __name__ == "__main__":
    main()
