"""What a playing process tells the server, one event at a time."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from db.phase import Phase


class Kind(StrEnum):
    """What an event is about."""

    PHASE = "phase"  # a phase begins
    TASK = "task"  # a task of the playbook begins that has no phases
    LINES = "lines"  # docker, compose or a container says something
    PROGRESS = "progress"  # more of the phase is done
    OK = "ok"  # a phase or a task ended well
    FAILED = "failed"  # a phase or a task failed
    UNREACHABLE = "unreachable"  # a task found no host, or lost it
    WORDS = "words"  # Ansible says something outside of tasks
    END = "end"  # Ansible has ended


@dataclass(frozen=True)
class Event:
    """One event; `result` is what our action plugin told of a phase's end, and {} where it did not get that far."""

    kind: Kind
    phase: Phase | None = None
    task: str | None = None  # of an event that belongs to no phase
    message: str = ""
    lines: list[str] = field(default_factory=list)
    is_warning: bool = False  # of the lines
    fraction: float | None = None  # of the phase that is done, from 0 to 1
    result: dict[str, Any] = field(default_factory=dict)
    rc: int | None = None

    @classmethod
    def read(cls, message: dict[str, Any]) -> "Event":
        """The event in a message of a playing process."""
        phase = message.get("phase")
        given = message | {"kind": Kind(message["kind"]), "phase": None if phase is None else Phase(phase)}
        return cls(**given)
