"""What a playing process has to know: one object from the worker to the process."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class PlayRequest:
    """One play: `playbook` with the inventory in `directory`."""

    directory: Path  # of the run, with its inventory
    playbook: str
    cookie: str  # marks each process that the play starts
    environment: Mapping[str, str]  # the whole one
    kept_open: tuple[int, ...] = ()  # descriptors; closed when all that the play has started has ended
    deadline: float | None = None  # when it has to end by itself, in seconds on `control.clock`; None: never
