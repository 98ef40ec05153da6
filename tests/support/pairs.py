"""Plays generated pairs of packages on the real server, and compares what runs with what is described.

`python -m tests.support.pairs --minutes 30 [--seed N]`, or scripts/pairs, goes on for as long.
"""

import argparse
import asyncio
import contextlib
import itertools
import random
import secrets
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.support import described
from tests.support.client import Client, Refused
from tests.support.compose_versions import COMPOSES, why_missing
from tests.support.docker import Docker, make_docker, make_hello
from tests.support.generated_packages import Pair, Version, generate
from tests.support.site import TRANSPORTS, Site, serve_site

PATIENCE = 120.0  # seconds for a run
AT_ONCE = 2  # pairs: half of the time is waiting


class Player:
    """Plays one pair as one project."""

    def __init__(self, site: Site, client: Client, docker: Docker, project: str, directory: Path) -> None:
        self._site = site
        self._client = client
        self._docker = docker
        self._project = project
        self._directory = directory
        self._deployment: str | None = None

    async def play(self, pair: Pair, host: str) -> list[str]:
        """What was wrong, empty when all was well; the first version, the second, and the second again."""
        wrong = await self._deploy(host, pair.first)
        if wrong:
            return [f"the first: {words}" for words in wrong]
        was, before = await self._describe(pair.first, "first"), await self._containers()
        if wrong := await self._deploy(host, pair.second):
            return [f"the second: {words}" for words in wrong]
        now, after = await self._describe(pair.second, "second"), await self._containers()
        for name in sorted(described.unchanged(was, now)):
            kept = before.get(name, set()) & after.get(name, set())
            if len(kept) != min(was[name].containers, now[name].containers):
                wrong.append(f"the second: {name} is as before, and its containers were replaced")
        wrong += [f"once more: {words}" for words in await self._run()]
        if await self._containers() != after:
            wrong.append("once more: nothing has changed, and containers were replaced")
        return wrong

    async def _deploy(self, host: str, version: Version) -> list[str]:
        texts = version.compose_files(self._project)
        try:
            payload = await self._client.change(
                "createPackage",
                "package { id }",
                name=f"pair {secrets.token_hex(8)}",
                version="1",
                composeFile=texts["compose.yaml"],
                files=version.input_files(self._project),
            )
            if self._deployment is not None:
                await self._client.change("deleteDeployment", "deletedDeploymentId", deploymentId=self._deployment)
            variables = [{"name": name, "value": value} for name, value in version.variables.items()]
            self._deployment = await self._client.deployment(
                host, str(payload["package"]["id"]), self._project, variables
            )
        except Refused as refused:
            return [f"refused: {refused}"]
        if wrong := await self._run():
            return wrong
        name = secrets.token_hex(4)
        wanted = await self._describe(version, name)
        return await asyncio.to_thread(described.differences, self._docker, self._project, wanted)

    async def _run(self) -> list[str]:
        assert self._deployment is not None
        run = await self._client.play(self._deployment, seconds=PATIENCE)
        if run["status"] == "SUCCESS":
            return []
        return [f"{run['status']} {run['reason']}: {run['message']}\n{await self._client.words(run['id'])}"]

    # Docker is asked in threads: a client that waits for it sends no body of the other pair's request meanwhile.

    async def _describe(self, version: Version, name: str) -> dict[str, described.Described]:
        place = self._directory / name
        return await asyncio.to_thread(described.describe, version, self._project, place, self._site.home)

    async def _containers(self) -> dict[str, set[str]]:
        return await asyncio.to_thread(described.containers_by_service, self._docker, self._project)


async def play_pair(seed: int, site: Site, client: Client, docker: Docker, directory: Path) -> str | None:
    """Play the pair of a seed over the transport that the seed chooses.

    None when all was well, else what was wrong, with both packages.
    """
    pair = generate(seed)
    project = f"daos-pair-{secrets.token_hex(4)}"
    transport = TRANSPORTS[seed % 2]
    try:
        host = await site.new_host(client, transport)
        wrong = await Player(site, client, docker, project, directory).play(pair, host)
    finally:
        await asyncio.to_thread(docker.remove_project, project)
    if not wrong:
        return None
    parts = [f"seed {seed} over {transport}, changed: {', '.join(pair.changes)}", *wrong]
    return "\n".join([*parts, "first:", pair.first.show(project), "second:", pair.second.show(project)])


async def go_on(site: Site, docker: Docker, seeds: Iterator[int], until: float, directory: Path) -> tuple[int, int]:
    """Play pairs until that time of the monotonic clock, AT_ONCE at once; how many were played, and how many wrong."""
    client = Client(site.server)
    counts = [0, 0]

    async def play_some() -> None:
        while time.monotonic() < until:
            seed = next(seeds)
            place = directory / str(seed)
            wrong = await play_pair(seed, site, client, docker, place)
            counts[0] += 1
            if wrong is not None:
                counts[1] += 1
                print(wrong, flush=True)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(play_some())
    finally:
        await client.close()
    return counts[0], counts[1]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="scripts/pairs", description="Deploys generated pairs of packages.")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, help="the first of the seeds, which follow each other; else any")
    parser.add_argument("--compose", choices=COMPOSES, default=COMPOSES[0])
    options = parser.parse_args(arguments)
    if options.compose == "newest" and (missing := why_missing()):
        parser.error(missing)
    first = random.randrange(10**9) if options.seed is None else options.seed
    print(f"pairs from seed {first} on, with the {options.compose} compose", flush=True)
    docker = make_docker()
    make_hello()
    seeds = itertools.count(first)
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="daos-pairs")))
        site = stack.enter_context(serve_site(directory, "127.0.0.1", options.compose, {}))
        until = time.monotonic() + options.minutes * 60
        played, wrong = asyncio.run(go_on(site, docker, seeds, until, directory / "described"))
    print(f"{played} pairs played, {wrong} wrong")
    return 1 if wrong or not played else 0


if __name__ == "__main__":
    sys.exit(main())
