"""`scripts/chaos`: a long time of trouble, and a table of what became of the runs."""

import argparse
import asyncio
import secrets
import tempfile
from dataclasses import replace
from pathlib import Path

from tests.support.chaos.scenario import LONG, SHORT, staged


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="of troubles [10]")
    parser.add_argument("--seed", type=int, help="decides order, times and victims; by default a new one, printed")
    parser.add_argument("--short", action="store_true", help="what the tests do, whatever --minutes says")
    parser.add_argument("--keep", type=Path, help="a new directory in which all logs and files of nodes and hosts stay")
    parsed = parser.parse_args()
    seed = secrets.randbelow(10**6) if parsed.seed is None else parsed.seed
    print(f"seed {seed}", flush=True)
    scale = SHORT if parsed.short else replace(LONG, seconds=60 * parsed.minutes)
    with tempfile.TemporaryDirectory(prefix="chaos-") as temporary:
        directory = parsed.keep or Path(temporary)
        with staged(scale, seed, directory) as scene:
            report = asyncio.run(scene.play())
    print(*report.told, "", report, sep="\n")
    raise SystemExit(bool(report.faults))


if __name__ == "__main__":
    main()
