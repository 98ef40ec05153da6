"""What a playing process tells the server, one event at a time."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Kind(StrEnum):
    """What an event is about."""

    TASK = "task"  # a task begins, or a phase of one that has phases
    LINES = "lines"  # docker, compose or a container says something
    PROGRESS = "progress"  # more of the task is done
    OK = "ok"  # a task ended well
    FAILED = "failed"  # a task failed on the host
    UNREACHABLE = "unreachable"  # a task found no host, or lost it
    WORDS = "words"  # Ansible says something outside of tasks
    END = "end"  # Ansible has ended


@dataclass(frozen=True)
class Event:
    """One event; `result` is what our action plugin told of a phase's end, and {} where it did not get that far."""

    kind: Kind
    task: str | None = None
    message: str = ""
    lines: list[str] = field(default_factory=list)
    is_warning: bool = False  # of the lines
    fraction: float | None = None  # of the task that is done, from 0 to 1
    result: dict[str, Any] = field(default_factory=dict)
    rc: int | None = None
