"""Determines how a run whose play was cut off ends: by what cut it off, and by what its host knows.  Pure.

`ENDINGS` is the table; `CutOff` looks up an end and makes its message.  A lost connection alone does not end a run.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from db.containers import Container
from db.models import FailureReason, RunStatus
from db.phase import Phase, PhaseOutcome
from db.run_phases import OF_ACTION
from db.status import End
from runner.outcome import failed, failure_message, known_reason, success, unreachable, warned, warnings
from runner.play.event import Event, Kind, Marker, MarkerState
from runner.spec.run import Project


class Interruption(StrEnum):
    """What cut a play off before it had reported the run's end."""

    CANCELED = "canceled"  # a user canceled the run
    TIMEOUT = "timeout"  # it took longer than the time limit of a run
    STOPPED = "stopped"  # the server is stopping
    CRASHED = "crashed"  # the server or worker was killed; the next one finds the run
    DISCONNECTED = "disconnected"  # the connection or the play process was lost
    LEASE_LOST = "lease lost"  # this worker must not hold the run any longer; another one may
    HOST_KEY_CHANGED = "host key changed"  # another key was pinned while the host was contacted for the first time


class Verdict(StrEnum):
    """What the host knows about a run that was cut off."""

    UNREACHED = "unreached"  # the host does not answer, and was not reached before either
    UNAVAILABLE = "unavailable"  # the host was reached, and no longer answers
    BUSY = "busy"  # processes of the run are still active there
    SUCCEEDED = "succeeded"  # the run had recorded the end of its last phase
    HEALTHY = "healthy"  # the containers that it was to bring up are up and healthy
    FAILED = "failed"  # it had recorded a failure, or the containers that it brought up are not healthy
    UNDECIDED = "undecided"  # no process of it is active, and how it would have ended cannot be known


class Ending(StrEnum):
    """How a run that was cut off ends."""

    SUCCESS = "success"
    FAILED = "failed"  # with the host's reason
    CANCELED = "canceled"
    TIMEOUT = "timeout"
    INTERRUPTED = "interrupted"
    UNREACHABLE = "unreachable"  # with what ssh printed
    HOST_KEY_MISMATCH = "host key mismatch"
    REQUEUE = "requeue"  # queued again, for any worker; INTERRUPTED if no other worker could play it


def _all(ending: Ending) -> dict[Verdict, Ending]:
    return dict.fromkeys(Verdict, ending)


# A success that the run itself had recorded counts, and a run whose processes are still active is never CANCELED.
_RECORDED = {Verdict.SUCCEEDED: Ending.SUCCESS, Verdict.BUSY: Ending.INTERRUPTED}
_JUDGED = {Verdict.SUCCEEDED: Ending.SUCCESS, Verdict.HEALTHY: Ending.SUCCESS, Verdict.FAILED: Ending.FAILED}

ENDINGS: Mapping[Interruption, Mapping[Verdict, Ending]] = {
    Interruption.CANCELED: _all(Ending.CANCELED) | _RECORDED | {Verdict.UNAVAILABLE: Ending.INTERRUPTED},
    Interruption.TIMEOUT: _all(Ending.TIMEOUT) | _RECORDED,
    # A run can safely be played twice.
    Interruption.STOPPED: _all(Ending.REQUEUE) | _JUDGED,
    Interruption.CRASHED: _all(Ending.REQUEUE) | _JUDGED,
    Interruption.DISCONNECTED: _all(Ending.INTERRUPTED)
    | _JUDGED
    | {Verdict.UNREACHED: Ending.UNREACHABLE, Verdict.UNAVAILABLE: Ending.UNREACHABLE},
    # The host is not asked: another worker may be active there.
    Interruption.LEASE_LOST: _all(Ending.REQUEUE),
    Interruption.HOST_KEY_CHANGED: _all(Ending.HOST_KEY_MISMATCH),
}
UNASKED = frozenset({Interruption.LEASE_LOST, Interruption.HOST_KEY_CHANGED})  # after these no host is asked
UNJUDGED = frozenset({Interruption.CANCELED, Interruption.TIMEOUT})  # the containers are not judged after these

_REASONS = {
    Ending.CANCELED: FailureReason.CANCELED,
    Ending.TIMEOUT: FailureReason.TIMEOUT,
    Ending.HOST_KEY_MISMATCH: FailureReason.HOST_KEY_MISMATCH,
}
_OPENING = {
    Interruption.CANCELED: "The run was canceled",
    Interruption.TIMEOUT: "The run took longer than a run may",
    Interruption.STOPPED: "The server was stopped during the run",
    Interruption.CRASHED: "The server ended unexpectedly during the run",
    Interruption.DISCONNECTED: "The connection was lost during the run",
    Interruption.LEASE_LOST: "The worker lost the database during the run",
}
_PROGRESS = {
    Phase.PREPARE: "while its files were prepared; the previous containers keep running",
    Phase.BUILD: "while images were built; the previous containers keep running",
    Phase.PULL: "while images were pulled; the previous containers keep running",
    Phase.UP: "while the containers were started; some may be new and some old",
    Phase.VERIFY: "while daos waited for the containers to be healthy; they are up",
    Phase.DOWN: "while the containers were removed; some may be left",
}


@dataclass(frozen=True)
class Answer:
    """What a host answered about a run that was cut off, see ansible/recover.yml and ansible/halt.yml."""

    busy: bool  # processes of the run are still active there
    marker: Marker | None  # the last run's record on the host; None if there was no run
    verdict: PhaseOutcome | None  # OK, FAILED, or None if there was nothing to judge
    reason: str | None
    detail: str | None
    containers: list[Container]
    warnings: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, events: list[Event]) -> "Answer | None":
        """Return the answer among the events of recover.yml or halt.yml; None if the host did not answer."""
        result = next((event.result for event in events if event.kind is Kind.OK and event.result is not None), None)
        if result is None:
            return None
        return cls(
            busy=result.is_busy,
            marker=result.marker,
            verdict=result.verdict,
            reason=result.reason,
            detail=result.detail,
            containers=result.containers,
            warnings=warnings(events),
        )


@dataclass(frozen=True)
class CutOff:
    """A run whose play was cut off, with everything that is known about it."""

    project: Project
    interruption: Interruption
    answer: Answer | None = None  # None: the host was not asked, or did not answer
    was_reached: bool = True  # the run had begun a phase on the host
    ssh_error: str | None = None  # what ssh printed, if the connection was lost
    warnings: list[str] = field(default_factory=list)  # of the play

    @property
    def verdict(self) -> Verdict:
        answer = self.answer
        if answer is None:
            return Verdict.UNAVAILABLE if self.was_reached else Verdict.UNREACHED
        if answer.busy:
            return Verdict.BUSY
        if self._marker is None:
            return Verdict.UNDECIDED
        last = OF_ACTION[self.project.action][-1]
        if (self._marker.phase, self._marker.state) == (last, MarkerState.DONE):
            return Verdict.SUCCEEDED
        if answer.verdict is None:
            return Verdict.UNDECIDED
        return Verdict.HEALTHY if answer.verdict is PhaseOutcome.OK else Verdict.FAILED

    @property
    def ending(self) -> Ending:
        return ENDINGS[self.interruption][self.verdict]

    @property
    def has_begun_up(self) -> bool:
        """Whether the run's content is on the host, according to its marker."""
        return self._marker is not None and self._marker.phase in {Phase.UP, Phase.VERIFY}

    def end(self) -> End:
        """Return the run's end, if it is not queued again."""
        end = self._end()
        if self.answer is not None and not end.containers:
            end = replace(end, containers=self.answer.containers)
        return warned(end, [*self.warnings, *(self.answer.warnings if self.answer is not None else [])])

    def _end(self) -> End:
        ending = self.ending
        if ending is Ending.SUCCESS:
            return success(self.project, self.answer.containers if self.answer is not None else [])
        if ending is Ending.FAILED:
            return self._failure()
        if ending is Ending.UNREACHABLE and self.ssh_error is not None:
            return unreachable(self.project, self.ssh_error)
        status = RunStatus.CANCELED if ending is Ending.CANCELED else RunStatus.FAILED
        return End(status, _REASONS.get(ending, FailureReason.INTERRUPTED), self._sentence())

    def _failure(self) -> End:
        """Return the failure that the run had recorded on the host, or that its containers show."""
        assert self.answer is not None
        assert self._marker is not None
        reason = known_reason(self.answer.reason) or FailureReason.UNHEALTHY
        phase = self._marker.phase.label if self._marker.phase is not None else "The run"
        return failed(reason, failure_message(reason, phase, self.answer.detail or "see the log"))

    def _sentence(self) -> str:
        """Return what cut the run off and how far it had come, as a sentence."""
        host = self.project.target.name
        if self.interruption is Interruption.HOST_KEY_CHANGED:
            return f"Host '{host}' shows another host key than the one that was pinned meanwhile."
        opening = _OPENING[self.interruption]
        match self.verdict:
            case Verdict.UNREACHED if self.ending is Ending.CANCELED:
                return f"{opening} before host '{host}' had answered."
            case Verdict.UNREACHED | Verdict.UNAVAILABLE:
                return f"{opening}, and host '{host}' could not be asked how far it had come."
            case Verdict.BUSY:
                return f"{opening}, and its work on host '{host}' has not ended yet."
            case _:
                comma = "," if self.interruption is Interruption.TIMEOUT else ""
                return f"{opening}{comma} {self._where()}."

    def _where(self) -> str:
        """Return how far the run had come, as the end of a sentence."""
        assert self.answer is not None
        if self._marker is not None:
            phase = self._marker.phase
            return _PROGRESS.get(phase, "at an unknown point") if phase is not None else "at an unknown point"
        # Ids of runs grow with time: a higher one belongs to a later run, a lower one was there before this run.
        if self.answer.marker is not None and self.answer.marker.run > str(self.project.run_id):
            return "and another run has been on the host since"
        return "before it had changed anything on the host"

    @property
    def _marker(self) -> Marker | None:
        """The run's own marker; None if the host has none or another run's."""
        marker = self.answer.marker if self.answer is not None else None
        return marker if marker is not None and marker.run == str(self.project.run_id) else None
