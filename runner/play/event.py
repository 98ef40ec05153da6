"""The events of a play, in the one form that is used from the action plugin to the log of the run.

The plugin displays its events behind `MARK`, `runner.play.program` passes them on unchanged, and the server reads
them.  Standard library only, because Ansible's process imports this module, too.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from db.containers import Container
from db.phase import Phase, PhaseOutcome

TASK = "compose_project"  # our own task, whose action plugin displays its events itself
MARK = "daos "  # the prefix of what Ansible displays for the server; a JSON array of events follows


class Kind(StrEnum):
    """What an event is about."""

    PHASE = "phase"  # a phase begins
    TASK = "task"  # a task of the playbook that has no phases begins
    LINES = "lines"  # output of Docker, Compose, a container, or a task that has no phases
    PROGRESS = "progress"  # the progress of the phase has increased
    OK = "ok"  # a phase or a task succeeded
    FAILED = "failed"  # a phase or a task failed
    UNREACHABLE = "unreachable"  # a task could not reach its host, or lost the connection
    MESSAGE = "message"  # Ansible prints something outside of tasks
    END = "end"  # Ansible has ended


class MarkerState(StrEnum):
    """The state of the phase in a marker."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True)
class Marker:
    """The last record of a run on its host; None stands for a value that this version of daos does not know."""

    run: str = ""  # its id
    phase: Phase | None = None
    state: MarkerState | None = None

    @classmethod
    def read(cls, written: Mapping[str, Any]) -> "Marker":
        """Return the marker in the output of `write`.  Raises: ValueError."""
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
    """How a phase ended.

    For HALT and RECOVER, it includes what was found on the host, and `reason` belongs to the verdict.
    """

    changed: bool = False
    reason: str | None = None  # the name of a FailureReason
    detail: str | None = None  # one line
    containers: list[Container] = field(default_factory=list)  # by name
    warnings: list[str] = field(default_factory=list)
    is_busy: bool = False  # processes of the run are still active on the host
    marker: Marker | None = None  # None: no run has written one
    verdict: PhaseOutcome | None = None  # OK or FAILED; None if the host cannot determine it

    @classmethod
    def read(cls, written: Mapping[str, Any]) -> "PhaseResult":
        """Return the result in the output of `write`.  Raises: ValueError."""
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
        return _without_defaults({**vars(self), **typed})


@dataclass(frozen=True)
class Event:
    """One event of a play.  `result` is set for a phase that has ended, and None for a task."""

    kind: Kind
    phase: Phase | None = None
    task: str | None = None  # of an event that belongs to no phase
    message: str = ""
    lines: list[str] = field(default_factory=list)
    is_warning: bool = False  # of the lines
    fraction: float | None = None  # progress of the phase, from 0 to 1
    result: PhaseResult | None = None
    rc: int | None = None

    @classmethod
    def read(cls, written: Mapping[str, Any]) -> "Event":
        """Return the event in the output of `write`.  Raises: ValueError."""
        phase, result = written.get("phase"), written.get("result")
        typed = {
            "kind": Kind(written["kind"]),
            "phase": None if phase is None else Phase(phase),
            "result": None if result is None else PhaseResult.read(result),
        }
        return cls(**{**written, **typed})

    def write(self) -> dict[str, Any]:
        """Return a JSON object from which `read` restores the event."""
        return _without_defaults({**vars(self), "result": None if self.result is None else self.result.write()})


def displayed(events: Iterable[Event]) -> str:
    """Return the text that the action plugin displays for the server."""
    return MARK + json.dumps([event.write() for event in events])


def readable(events: Iterable[Event]) -> list[str]:
    """Return the lines that the action plugin displays for people; the result of the task says how a phase ended."""
    shown = []
    for event in events:
        label = event.phase.label if event.phase is not None else ""
        if event.kind is Kind.PHASE:
            shown.append(f"{label} begins.")
        shown += [f"{'Warning: ' if event.is_warning else ''}{line}" for line in event.lines]
    return shown


def _without_defaults(written: dict[str, Any]) -> dict[str, Any]:
    """Return the entries that differ from the defaults; a number that is 0 stays."""
    return {key: value for key, value in written.items() if not (value is None or value is False or value in ("", []))}
