"""From Ansible's events and the host's words to a status, a reason and a sentence.  Pure.

`judge` reads what a play told.  Where that is no verdict, because the play was stopped or the connection was lost, the
host itself is asked (ansible/recover.yml) and `settle` reads its answer.  A broken transport is never taken for an end.
"""

import re
from dataclasses import dataclass, field, replace
from enum import StrEnum

from db.containers import Container
from db.models import FailureReason, RunAction, RunStatus
from db.phase import Phase, PhaseOutcome
from db.status import End
from runner.play.event import Event, Kind, Marker, MarkerState
from runner.spec.phases import OF_ACTION
from runner.spec.run import Project
from runner.ssh.known_hosts import FINGERPRINT, stored
from runner.ssh.target import Target

MAX_WARNINGS = 100  # of one run


class Cause(StrEnum):
    """Why a play gave no verdict of its own."""

    CANCELED = "canceled"  # somebody asked for it
    TIMEOUT = "timeout"  # it took longer than a run may
    STOPPED = "stopped"  # the server is stopping
    CRASHED = "crashed"  # the server was killed, and this is the next one
    LOST = "lost"  # the connection or the playing process went away
    ABANDONED = "abandoned"  # the worker may hold it no longer; others may


def failed(reason: FailureReason, message: str, containers: list[Container] | None = None) -> End:
    """A run that did not succeed."""
    return End(RunStatus.FAILED, reason, message, containers or [])


def judge(project: Project, events: list[Event]) -> End | None:
    """What the play's own events say; None where they are no verdict and the host has to be asked."""
    end = _judge(project, events)
    return None if end is None else warned(end, warnings(events))


def _judge(project: Project, events: list[Event]) -> End | None:
    phases = OF_ACTION[project.action]
    has_reached_host = any(event.kind in {Kind.PHASE, Kind.TASK} for event in events)
    for event in events:
        if event.kind is Kind.FAILED:
            return _judge_failure(event)
        if event.kind is Kind.UNREACHABLE:
            # Once it was reached, it may have been changed.
            return None if has_reached_host else unreachable(project.target, event.message)
    done = [event for event in events if event.kind is Kind.OK and event.phase in phases]
    end = next((event for event in events if event.kind is Kind.END), None)
    if len(done) == len(phases) and end is not None:
        result = done[-1].result
        return _success(project, result.containers if result is not None else [])
    if end is None or done or has_reached_host:
        return None  # once it was reached, only the host knows what became of it
    words = [event.message.splitlines()[0] for event in events if event.kind is Kind.WORDS]
    errors = [line for line in words if "ERROR" in line]  # what follows shows where in the file it is
    detail = (errors or words or [f"it ended with status {end.rc}"])[0]
    return failed(FailureReason.ANSIBLE_ERROR, f"Ansible could not play the run: {detail}")


def _judge_failure(event: Event) -> End:
    result = event.result
    if result is None:  # not the words of our action plugin: Ansible itself has failed
        return failed(FailureReason.ANSIBLE_ERROR, f"Ansible failed in {event.task or event.phase}: {event.message}")
    reason = _reason(result.reason) or FailureReason.TASK_FAILED
    detail = result.detail or event.message
    return failed(reason, _sentence(reason, event.phase.label if event.phase else "The run", detail), result.containers)


def _sentence(reason: FailureReason, task: str, detail: str) -> str:
    if reason in {FailureReason.IMAGE_PULL_FAILED, FailureReason.IMAGE_BUILD_FAILED}:
        return f"{detail} What ran before still runs."
    if reason in {FailureReason.PORT_IN_USE, FailureReason.DISK_FULL}:
        return detail
    if reason is FailureReason.COMPOSE_INVALID:
        words = f"Docker Compose refuses the files of the package: {detail.rstrip('.')}."
        return f"{words} Correct them in a new version of the package."
    opening = {
        FailureReason.DOCKER_UNAVAILABLE: "Docker cannot be used on the host",
        FailureReason.UNHEALTHY: "The project is up but not well",
        FailureReason.TIMEOUT: f"{task} took too long",
    }.get(reason, f"{task} failed")
    return f"{opening}: {detail}"


def _success(project: Project, containers: list[Container]) -> End:
    if project.action is RunAction.DOWN:
        return End(RunStatus.SUCCESS, None, "The project is down; no container of it is left.", containers)
    count = len({container.service for container in containers})
    many = f"{count} services" if count != 1 else "The one service"
    verb = "are" if count != 1 else "is"
    return End(RunStatus.SUCCESS, None, f"{many} of the project {verb} up and well.", containers)


def warnings(events: list[Event]) -> list[str]:
    """The warnings of all phases that have ended, in their order, each once."""
    found = [warning for event in events if event.result is not None for warning in event.result.warnings]
    return list(dict.fromkeys(found))[:MAX_WARNINGS]


def warned(end: End, given: list[str]) -> End:
    """`end` with warnings, which a sentence of success counts."""
    if not given:
        return end
    if end.status is not RunStatus.SUCCESS:
        return replace(end, warnings=given)
    many = "1 warning" if len(given) == 1 else f"{len(given)} warnings"
    return replace(end, message=f"{end.message.removesuffix('.')}, with {many}.", warnings=given)


def _reason(word: str | None) -> FailureReason | None:
    """The reason that a host gives; TASK_FAILED where this daos does not know it, None where there is none."""
    if not word:
        return None
    return FailureReason.__members__.get(word) or FailureReason.TASK_FAILED


_REFUSED = (
    "refuses the login of '{user}' with {key}; add the public key to the authorized_keys of '{user}' on the host, or "
    "change the host's user or key"
)
_UNREACHABLE = (
    # (ssh's words, reason, sentence); the first that fits is taken
    ("error in libcrypto", FailureReason.SSH_KEY_INVALID, "could not be logged in to: ssh cannot read the SSH key"),
    ("invalid format", FailureReason.SSH_KEY_INVALID, "could not be logged in to: ssh cannot read the SSH key"),
    ("Permission denied", FailureReason.AUTHENTICATION_FAILED, _REFUSED),
    ("Too many authentication failures", FailureReason.AUTHENTICATION_FAILED, _REFUSED),
    (
        "Connection refused",
        FailureReason.HOST_UNREACHABLE,
        "refuses the connection to {address} port {port}; see that sshd listens there, and the host's address and port",
    ),
    (
        "Could not resolve hostname",
        FailureReason.HOST_UNREACHABLE,
        "cannot be found: the name {address} is unknown; correct its address with updateHost",
    ),
    (
        "timed out",
        FailureReason.HOST_UNREACHABLE,
        "does not answer at {address} port {port}; see that it runs, and the firewalls on the way",
    ),
    (
        "No route to host",
        FailureReason.HOST_UNREACHABLE,
        "cannot be reached: there is no route to {address}; see the network of the server",
    ),
)


_MISMATCH = ("HOST IDENTIFICATION HAS CHANGED", "Host key verification failed")  # ssh's words
_BAD_CERTIFICATE = re.compile(r"Certificate invalid: ([ -~]+)")


def _key(target: Target) -> str:
    """The key that a host is logged in to with, to be put behind "with"."""
    if target.ssh_key is not None:
        return "its stored SSH key"
    return f"key {target.ssh_key_path}" if target.ssh_key_path is not None else "the keys of the server's user"


def unreachable(target: Target, words: str) -> End:
    """A run whose host could not be talked to, by what ssh said."""
    if any(text in words for text in _MISMATCH):
        return failed(FailureReason.HOST_KEY_MISMATCH, _mismatch(target, words))
    for text, reason, sentence in _UNREACHABLE:
        if text in words:
            told = sentence.format(user=target.user, address=target.address, port=target.port, key=_key(target))
            return failed(reason, f"Host '{target.name}' {told}.")
    return failed(FailureReason.HOST_UNREACHABLE, f"Host '{target.name}' cannot be reached: {words.strip()}")


def _mismatch(target: Target, words: str) -> str:
    """Which keys do not fit, and what to do."""
    known = stored(target.known_hosts)
    pinned = [key.fingerprint for key in known if not key.is_authority]
    shown = FINGERPRINT.search(words)
    invalid = _BAD_CERTIFICATE.search(words)
    told = [
        f"shown is {shown[0]}" if shown else "",
        f"pinned is {', '.join(pinned)}" if pinned else "",
        f"no certificate of a trusted authority fits {target.address}" if len(pinned) < len(known) else "",
        f"its certificate is invalid: {invalid[1]}" if invalid else "",
    ]
    what = "; ".join(part for part in told if part)
    wrong = "another host key than the pinned one" if pinned or not known else "a host key that nobody has vouched for"
    todo = "scanHostKey tells what it shows now; if that is right, trustHostKey pins it."
    return f"Host '{target.name}' shows {wrong}{': ' if what else ''}{what}. {todo}"


def unknown_key(target: Target) -> End:
    """A run on a host whose key nobody has vouched for, where the server asks for that."""
    words = (
        f"Host '{target.name}' has no pinned key, and this server talks to no host without one: see with scanHostKey "
        "what it shows, compare that with `ssh-keygen -lf` on the host, and pin it with trustHostKey."
    )
    return failed(FailureReason.HOST_KEY_UNKNOWN, words)


@dataclass(frozen=True)
class Answer:
    """What the host told when it was asked after a run, see ansible/recover.yml."""

    busy: bool  # something of the run still works there
    marker: Marker | None  # what the run wrote down last; None where it left nothing
    verdict: PhaseOutcome | None  # OK, FAILED, or None where there was nothing to judge
    reason: str | None
    detail: str | None
    containers: list[Container]
    warnings: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, events: list[Event]) -> "Answer | None":
        """The answer among the events of settle.yml; None where the host did not give one."""
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


def has_begun_up(project: Project, answer: Answer) -> bool:
    """Whether the run's content is on the host, by what it wrote down there."""
    marker = _own_marker(project, answer)
    return marker is not None and marker.phase in {Phase.UP, Phase.VERIFY}


def _own_marker(project: Project, answer: Answer) -> Marker | None:
    return answer.marker if answer.marker and answer.marker.run == str(project.run_id) else None


def settle(
    project: Project, cause: Cause, answer: Answer | None, *, touched: bool, earlier: list[str] | None = None
) -> End:
    """How a run without a verdict ended.

    `touched`: a phase had ended well, so the host had been reached; `earlier`: the warnings of the play.
    """
    given = [*(earlier or []), *(answer.warnings if answer is not None else [])]
    return warned(_settle(project, cause, answer, touched=touched), list(dict.fromkeys(given))[:MAX_WARNINGS])


def _settle(project: Project, cause: Cause, answer: Answer | None, *, touched: bool) -> End:
    if answer is None:
        return _unknown(project, cause, touched=touched)
    if answer.busy:
        words = f"{_cut_off(cause)}, and its work on host '{project.target.name}' has not ended yet."
        return failed(FailureReason.INTERRUPTED, words, answer.containers)
    marker = _own_marker(project, answer)
    return _recorded(project, marker, answer) or _ended(project, cause, marker, answer)


def _ended(project: Project, cause: Cause, marker: Marker | None, answer: Answer) -> End:
    """The end of a run that had written down none, and whose work is over."""
    # Ids of runs grow: a marker that is older was there before this run, which has written none of its own.
    is_overtaken = marker is None and answer.marker is not None and answer.marker.run > str(project.run_id)
    where = "and another run has been on the host since" if is_overtaken else _where(marker)
    if cause is Cause.CANCELED:
        return End(RunStatus.CANCELED, FailureReason.CANCELED, f"The run was canceled {where}.", answer.containers)
    if cause is Cause.TIMEOUT:
        return failed(FailureReason.TIMEOUT, f"{_cut_off(cause)}, {where}.", answer.containers)
    if answer.verdict is not None and marker is not None:
        return _by_verdict(project, answer, marker.phase.label if marker.phase else "The run")
    return failed(FailureReason.INTERRUPTED, f"{_cut_off(cause)} {where}.", answer.containers)


def _recorded(project: Project, marker: Marker | None, answer: Answer) -> End | None:
    """The end that the run itself had written down on the host before its news was lost."""
    if marker is None or marker.phase is not OF_ACTION[project.action][-1]:
        return None
    if marker.state is MarkerState.DONE:
        return _success(project, answer.containers)
    return None


def _by_verdict(project: Project, answer: Answer, phase: str) -> End:
    """The end that the host tells of, or that its containers show."""
    if answer.verdict is PhaseOutcome.OK:
        return _success(project, answer.containers)
    reason = _reason(answer.reason) or FailureReason.UNHEALTHY
    return failed(reason, _sentence(reason, phase, answer.detail or "see the log"), answer.containers)


def _unknown(project: Project, cause: Cause, *, touched: bool) -> End:
    name = project.target.name
    if cause is Cause.CANCELED and not touched:
        words = f"The run was canceled before host '{name}' had answered."
        return End(RunStatus.CANCELED, FailureReason.CANCELED, words)
    words = f"{_cut_off(cause)}, and host '{name}' could not be asked how far it had come."
    return failed(FailureReason.TIMEOUT if cause is Cause.TIMEOUT else FailureReason.INTERRUPTED, words)


def _cut_off(cause: Cause) -> str:
    return {
        Cause.CANCELED: "The run was canceled",
        Cause.TIMEOUT: "The run took longer than a run may",
        Cause.STOPPED: "The server was stopped during the run",
        Cause.CRASHED: "The server ended unexpectedly during the run",
        Cause.LOST: "The connection was lost during the run",
        Cause.ABANDONED: "The worker lost the database during the run",
    }[cause]


def _where(marker: Marker | None) -> str:
    """How far the run had come, to be put behind a comma or a verb."""
    if marker is None:
        return "before it had changed anything on the host"
    reached: dict[Phase | None, str] = {
        Phase.PREPARE: "while its files were prepared; what ran before still runs",
        Phase.BUILD: "while images were built; what ran before still runs",
        Phase.PULL: "while images were pulled; what ran before still runs",
        Phase.UP: "while the containers were brought up; some may be new and some old",
        Phase.VERIFY: "while the containers were watched; they are up, but not known to be well",
        Phase.DOWN: "while the containers were taken down; some may be left",
    }
    return reached.get(marker.phase, "at an unknown point")
