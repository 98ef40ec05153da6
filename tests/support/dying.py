"""daos as it is, but that it dies at one point of a run's way, as by `kill -9`: `python dying.py POINT serve …`."""

import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn

from daos.cli import main
from db import status
from db.phase import Phase
from resolvers import runs
from runner.attempt import Attempt
from runner.play.event import Event, Kind
from runner.worker import Worker


def die(*_: object) -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("SIGKILL returns to nobody")


def die_before(owner: Any, name: str) -> None:
    """Let the first call be the last thing that happens."""
    setattr(owner, name, die)


def die_after(owner: Any, name: str) -> None:
    """Let the end of the first call be the last thing that happens."""
    original = getattr(owner, name)

    async def dying(*arguments: Any, **named: Any) -> None:
        await original(*arguments, **named)
        die()

    setattr(owner, name, dying)


def die_in(phase: str) -> None:
    """Let the news that a phase has begun be the last thing that happens."""
    original = Attempt._record

    def dying(attempt: Attempt, event: Event) -> None:
        original(attempt, event)
        if event.kind is Kind.PHASE and event.phase is Phase[phase.upper()]:
            die()

    setattr(Attempt, "_record", dying)  # noqa: B010 - mypy takes it for a constant


POINTS: dict[str, Callable[[], None]] = {
    "accepted, not answered": lambda: die_after(runs, "start"),
    "before the claim": lambda: die_before(status, "claim"),
    "after the claim": lambda: die_before(Worker, "_complete"),
    **{f"in {phase}": partial(die_in, phase) for phase in ("Prepare", "Build", "Pull", "Up", "Verify")},
    "before the end is written": lambda: die_before(Worker, "_finish"),
    "after the end is written": lambda: die_after(Worker, "_finish"),
}

if __name__ == "__main__":
    POINTS[sys.argv.pop(1)]()
    main()
