"""Derives a run's status, reason, and message from the events of a play.  Pure.

A play that was cut off has reported no end of the run, see `runner.interruption`.
"""

from dataclasses import replace

from db.containers import Container
from db.models import FailureReason, RunAction, RunStatus
from db.run_phases import OF_ACTION
from db.status import End
from runner.play.event import Event, Kind
from runner.spec.run import Project
from runner.ssh import failures

MAX_WARNINGS = 100  # per run


def failed(reason: FailureReason, message: str, containers: list[Container] | None = None) -> End:
    """Return the end of a run that did not succeed."""
    return End(RunStatus.FAILED, reason, message, containers or [])


def warned(end: End, given: list[str]) -> End:
    """Return `end` with the warnings, each once; the message of a success contains their number."""
    distinct = list(dict.fromkeys(given))[:MAX_WARNINGS]
    if not distinct:
        return end
    if end.status is not RunStatus.SUCCESS:
        return replace(end, warnings=distinct)
    count = "1 warning" if len(distinct) == 1 else f"{len(distinct)} warnings"
    return replace(end, message=f"{end.message.removesuffix('.')}, {count}.", warnings=distinct)


def warnings(events: list[Event]) -> list[str]:
    """Return the warnings of all phases that have ended, in order."""
    return [warning for event in events if event.result is not None for warning in event.result.warnings]


def has_reached_host(events: list[Event]) -> bool:
    """Whether a play has begun a phase on its host, or ended a task there: it may have changed the host then.

    That a task has begun says nothing: Ansible reports that before it connects.
    """
    return any(event.kind in {Kind.PHASE, Kind.OK} for event in events)


def ssh_error(events: list[Event]) -> str | None:
    """Return what ssh printed when the host could not be reached or the connection was lost; otherwise None."""
    return next((event.message for event in events if event.kind is Kind.UNREACHABLE), None)


def judge(project: Project, events: list[Event]) -> End | None:
    """Return how the run ended, by the play's events; None if only the host can know."""
    end = _judge(project, events)
    return None if end is None else warned(end, warnings(events))


def _judge(project: Project, events: list[Event]) -> End | None:
    end = next((event for event in events if event.kind is Kind.END), None)
    failure = _find_failure(events, end)
    is_reached = has_reached_host(events)
    if failure is not None and failure.kind is Kind.FAILED:
        return _judge_task(failure, events) if _is_of_operator(failure, events) else _judge_failure(failure)
    if failure is not None:
        return None if is_reached else unreachable(project, failure.message)
    phases = OF_ACTION[project.action]
    done = [event for event in events if event.kind is Kind.OK and event.phase in phases]
    if len(done) == len(phases) and end is not None:
        result = done[-1].result
        return success(project, result.containers if result is not None else [])
    if end is None or is_reached:
        return None
    messages = [event.message.splitlines()[0] for event in events if event.kind is Kind.MESSAGE]
    errors = [line for line in messages if "ERROR" in line]  # the lines after it show the position in the file
    detail = (errors or messages or [f"it ended with status {end.rc}"])[0]
    return failed(FailureReason.ANSIBLE_ERROR, f"Ansible could not play the run: {detail}")


def _find_failure(events: list[Event], end: Event | None) -> Event | None:
    """The first failure; not one of a task that the operator's playbook has rescued, which Ansible ends well after."""
    is_well = end is not None and end.rc == 0
    failures = (event for event in events if event.kind in {Kind.FAILED, Kind.UNREACHABLE})
    return next((event for event in failures if not (is_well and _is_rescued(event))), None)


def _is_rescued(failure: Event) -> bool:
    """Whether a failure need not be the play's, which has ended well."""
    return failure.kind is Kind.FAILED and failure.result is None


def _judge_failure(event: Event) -> End:
    result = event.result
    if result is None:  # not from our action plugin: Ansible itself has failed
        return failed(FailureReason.ANSIBLE_ERROR, f"Ansible failed in {event.task or event.phase}: {event.message}")
    reason = known_reason(result.reason) or FailureReason.TASK_FAILED
    detail = result.detail or event.message
    label = event.phase.label if event.phase is not None else "The run"
    return failed(reason, failure_message(reason, label, detail), result.containers)


def _is_of_operator(failure: Event, events: list[Event]) -> bool:
    """Whether a task that is not ours has failed: for ours, phases are reported instead of the task."""
    return failure.task in {event.task for event in events if event.kind is Kind.TASK}


def _judge_task(failure: Event, events: list[Event]) -> End:
    """Return the end of a run in which a task of the operator's own playbook has failed, before or after ours."""
    results = [event.result for event in events if event.result is not None]
    containers = results[-1].containers if results else []
    return failed(FailureReason.TASK_FAILED, f"Task '{failure.task}' failed: {failure.message}", containers)


def failure_message(reason: FailureReason, phase: str, detail: str) -> str:
    if reason in {FailureReason.IMAGE_PULL_FAILED, FailureReason.IMAGE_BUILD_FAILED}:
        return f"{detail} The previous containers keep running."
    if reason in {FailureReason.PORT_IN_USE, FailureReason.DISK_FULL}:
        return detail
    if reason is FailureReason.COMPOSE_INVALID:
        problem = f"Docker Compose refuses the files of the package: {detail.rstrip('.')}."
        return f"{problem} Correct them in a new version of the package."
    opening = {
        FailureReason.DOCKER_UNAVAILABLE: "Docker cannot be used on the host",
        FailureReason.UNHEALTHY: "The project is up but not healthy",
        FailureReason.TIMEOUT: f"{phase} took too long",
    }.get(reason, f"{phase} failed")
    return f"{opening}: {detail}"


def success(project: Project, containers: list[Container]) -> End:
    if project.action is RunAction.DOWN:
        return End(RunStatus.SUCCESS, None, "The project is down: none of its containers is left.", containers)
    count = len({container.service for container in containers})
    services = "1 service" if count == 1 else f"{count} services"
    return End(RunStatus.SUCCESS, None, f"The project is up: {services}.", containers)


def known_reason(word: str | None) -> FailureReason | None:
    """Return the reason that a host reports; TASK_FAILED if this daos does not know it, None if there is none."""
    if not word:
        return None
    return FailureReason.__members__.get(word, FailureReason.TASK_FAILED)


def unreachable(project: Project, error: str) -> End:
    """Return the end of a run whose host could not be contacted; `error` is what ssh printed."""
    reason, message = failures.explain(project.target, error)
    return failed(reason, message)


def unknown_host_key(project: Project) -> End:
    """Return the end of a run on a host without a pinned key, on a server that requires one."""
    message = (
        f"Host '{project.target.name}' has no pinned key, and this server contacts no host without one: see with "
        "scanHostKey what it shows, compare that with `ssh-keygen -lf` on the host, and pin it with trustHostKey."
    )
    return failed(FailureReason.HOST_KEY_UNKNOWN, message)
