"""Requests per second of `{ __typename }`: daos against bare Strawberry with the same schema.

Both are real server processes under uvicorn, and rounds alternate.  Seconds are CPU seconds of the server process: the
rate of a server with a CPU of its own, whatever else the machine does meanwhile.  The ratio is the median of the
rounds' ratios.  `{ __typename }` does almost no work, so the result is an upper bound of the layer's overhead.
"""

import argparse
import asyncio
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

TOKEN = "bench"  # noqa: S105 - of a server that lives for seconds
BODY = b'{"query":"{ __typename }"}'
ANSWER = b'{"data":{"__typename":"Query"}}'
GOAL = 0.85
START_TIMEOUT = 30.0  # seconds


@dataclass
class Target:
    """A server and the results of its rounds."""

    name: str
    port: int
    process: int  # its id
    rates: list[float] = field(default_factory=list)  # requests per second, by round

    @property
    def median(self) -> float:
        return statistics.median(self.rates)

    def used(self) -> float:
        """Return the CPU seconds that the process has used."""
        words = Path(f"/proc/{self.process}/stat").read_text().rpartition(")")[2].split()
        return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measure, print, and exit with status 1 if the ratio is below its goal."""
    parser = argparse.ArgumentParser(prog="scripts/bench http", description=__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="rounds of each server [9]")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a round [1]")
    parser.add_argument("--connections", type=int, default=20, help="clients at the same time [20]")
    parsed = parser.parse_args()
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="daos-bench-"))
        daos = stack.enter_context(_serving("daos", [sys.executable, "-m", "daos", "serve", "--port", "0"], directory))
        bare = stack.enter_context(_serving("bare", [sys.executable, "-m", "bench.bare"], directory))
        for target in (daos, bare):
            asyncio.run(_round(target, 1.0, parsed.connections))  # warms up
            target.rates.clear()
        for _ in range(parsed.rounds):
            for target in (daos, bare):
                asyncio.run(_round(target, parsed.seconds, parsed.connections))
    for target in (daos, bare):
        rates = " ".join(f"{rate:.0f}" for rate in target.rates)
        print(f"{target.name}  {target.median:6.0f} requests/s  (rounds: {rates})")
    ratios = [ours / theirs for ours, theirs in zip(daos.rates, bare.rates, strict=True)]
    ratio = statistics.median(ratios)
    print(f"ratio {ratio:.2f}  (goal: at least {GOAL}; rounds: {' '.join(f'{one:.2f}' for one in ratios)})")
    raise SystemExit(ratio < GOAL)


@contextmanager
def _serving(name: str, command: list[str], directory: str) -> Iterator[Target]:
    """Start a server with `command`; it prints its URL on stdout."""
    environment = os.environ | {"DAOS_DATA_DIR": directory, "DAOS_ADMIN_TOKEN": TOKEN}
    with (
        Path(directory, f"{name}.log").open("wb") as log,
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        try:
            assert process.stdout is not None
            found = re.search(r":(\d+)", process.stdout.readline())
            if found is None:
                raise SystemExit(Path(log.name).read_text())
            target = Target(name, int(found[1]), process.pid)
            asyncio.run(_wait_for(target))
            yield target
        finally:
            process.terminate()


async def _wait_for(target: Target) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", target.port)
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.1)
        else:
            writer.close()
            return


async def _round(target: Target, seconds: float, connections: int) -> None:
    """Send requests for `seconds` over each of `connections`, and record the rate."""
    until = time.perf_counter() + seconds
    before = target.used()
    async with asyncio.TaskGroup() as group:
        asking = [group.create_task(_ask(target.port, until)) for _ in range(connections)]
    target.rates.append(sum(task.result() for task in asking) / (target.used() - before))


async def _ask(port: int, until: float) -> int:
    """Return the number of responses that one connection received before `until`."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = (
        f"POST /graphql HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: {len(BODY)}\r\n"
    )
    request = f"{head}Content-Type: application/json\r\n\r\n".encode() + BODY
    answers = 0
    while time.perf_counter() < until:
        writer.write(request)
        headers = await reader.readuntil(b"\r\n\r\n")
        answer = await reader.readexactly(len(ANSWER))
        if answer != ANSWER:
            raise RuntimeError((headers + answer).decode())
        answers += 1
    writer.close()
    return answers


if __name__ == "__main__":
    main()
