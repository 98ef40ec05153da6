"""What a play reports, one event at a time: the one form from the action plugin to the log of the run.

The plugin displays its events behind `MARK`, `runner.play.program` passes them on as they are, and the server reads
them.  Standard library only: Ansible's own process imports it too.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from db.containers import Container
from db.phase import Phase, PhaseOutcome

TASK = "compose_project"  # our own task, whose action plugin displays its events itself
MARK = "daos "  # begins what Ansible displays for the server: behind it is a JSON array of events


class Kind(StrEnum):
    """What an event is about."""

    PHASE = "phase"  # a phase begins
    TASK = "task"  # a task of the playbook begins that has no phases
    LINES = "lines"  # Docker, Compose, a container, or a task that has no phases prints something
    PROGRESS = "progress"  # more of the phase is done
    OK = "ok"  # a phase or a task ended well
    FAILED = "failed"  # a phase or a task failed
    UNREACHABLE = "unreachable"  # a task found no host, or lost it
    WORDS = "words"  # Ansible says something outside of tasks
    END = "end"  # Ansible has ended


class MarkerState(StrEnum):
    """How far the phase of a marker had come."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True)
class Marker:
    """What a run wrote down on its host last; None stands for a word that this daos does not know."""

    run: str = ""  # its id
    phase: Phase | None = None
    state: MarkerState | None = None

    @classmethod
    def read(cls, written: Mapping[str, Any]) -> "Marker":
        """The marker in what `write` wrote.  Raises: ValueError."""
        phase, state = written.get("phase"), written.get("state")
        return cls(
            run=written["run"],
            phase=None if phase is None else Phase(phase),
            state=None if state is None else MarkerState(state),
        )

    def write(self) -> dict[str, Any]:
        return {"run": self.run, "phase": self.phase, "state": self.state}


@dataclass(frozen=True)
class PhaseResult:
    """How a phase ended; of HALT and RECOVER also what was found on the host, and then `reason` is the verdict's."""

    changed: bool = False
    reason: str | None = None  # the name of a FailureReason
    detail: str | None = None  # one line
    containers: list[Container] = field(default_factory=list)  # by name
    warnings: list[str] = field(default_factory=list)
    is_busy: bool = False  # the work of the run is not over
    marker: Marker | None = None  # None: no run has left one
    verdict: PhaseOutcome | None = None  # OK or FAILED; None where the host cannot know

    @classmethod
    def read(cls, written: Mapping[str, Any]) -> "PhaseResult":
        """The result in what `write` wrote.  Raises: ValueError."""
        marker, verdict = written.get("marker"), written.get("verdict")
        typed = {
            "containers": [Container.read(container) for container in written.get("containers", [])],
            "marker": None if marker is None else Marker.read(marker),
            "verdict": None if verdict is None else PhaseOutcome(verdict),
        }
        return cls(**{**written, **typed})

    def write(self) -> dict[str, Any]:
        typed = {
            "containers": [container.write() for container in self.containers],
            "marker": None if self.marker is None else self.marker.write(),
        }
        return _given({**vars(self), **typed})


@dataclass(frozen=True)
class Event:
    """One event.  `result` is that of a phase which has ended, and None of a task."""

    kind: Kind
    phase: Phase | None = None
    task: str | None = None  # of an event that belongs to no phase
    message: str = ""
    lines: list[str] = field(default_factory=list)
    is_warning: bool = False  # of the lines
    fraction: float | None = None  # of the phase that is done, from 0 to 1
    result: PhaseResult | None = None
    rc: int | None = None

    @classmethod
    def read(cls, written: Mapping[str, Any]) -> "Event":
        """The event in what `write` wrote.  Raises: ValueError."""
        phase, result = written.get("phase"), written.get("result")
        typed = {
            "kind": Kind(written["kind"]),
            "phase": None if phase is None else Phase(phase),
            "result": None if result is None else PhaseResult.read(result),
        }
        return cls(**{**written, **typed})

    def write(self) -> dict[str, Any]:
        """A JSON object from which `read` makes the same event."""
        return _given({**vars(self), "result": None if self.result is None else self.result.write()})


def displayed(events: Iterable[Event]) -> str:
    """What the action plugin displays for the server."""
    return MARK + json.dumps([event.write() for event in events])


def readable(events: Iterable[Event]) -> list[str]:
    """What the action plugin displays for people.  How a phase ended is in the result of the task."""
    shown = []
    for event in events:
        label = event.phase.label if event.phase is not None else ""
        if event.kind is Kind.PHASE:
            shown.append(f"{label} begins.")
        shown += [f"{'Warning: ' if event.is_warning else ''}{line}" for line in event.lines]
    return shown


def _given(written: dict[str, Any]) -> dict[str, Any]:
    """What is not as usual; a number that is 0 stays."""
    return {key: value for key, value in written.items() if not (value is None or value is False or value in ("", []))}
