"""The request for a play: one object that the worker passes to whatever starts the play process."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class PlayRequest:
    """A request to play `playbook` with the inventory in `directory`."""

    directory: Path  # of the run; contains the inventory
    playbook: str
    cookie: str  # marks each process that the play starts
    environment: Mapping[str, str]  # the complete environment of the process
    kept_open: tuple[int, ...] = ()  # descriptors; closed when every process that the play has started has ended
    deadline: float | None = None  # when the play must end by itself, in seconds on `control.clock`; None: never
