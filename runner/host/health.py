"""Decides whether the containers of a project are well.  Pure.

The script on the host inspects them; `Watch` decides.  Limits are times, not counts: a container that can still become
well gets the time that it needs, and one that clearly cannot fails immediately.  Ansible's process imports this module,
so it uses the standard library only.  Nothing here reads a clock: times are monotonic seconds that the caller passes.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from db.containers import ContainerHealth, ContainerState
from runner.host.inspection import MARGIN, NOT_EXECUTABLE, NOT_FOUND, HealthCheck, Inspection, LastCheck
from runner.host.verdict import Finding, Kind, Verdict

RESTART_WINDOW = 60.0  # seconds after its first restart within which a container has to recover
STEADY = 10.0  # seconds without interruption after which a restarted container is well
HOPELESS_RESTARTS = 3  # restarts of a command that cannot be executed or was not found
QUIET = 0.8  # seconds at the beginning during which waiting is not logged
_POLLS = ((5.0, 0.2), (30.0, 0.5))  # (until so many seconds have passed, seconds between two inspections)
_SLOWEST_POLL = 1.0  # seconds
_SLACK = 0.1  # seconds; a poll is delayed by up to this much to avoid another one
_INSPECTION = 0.01  # seconds; an inspection takes at least this long
_ROUNDING = 1e-3  # seconds


@dataclass
class _Seen:
    """What a watch stores about a container."""

    first: float  # when it was first inspected
    since: float  # it has run without interruption since then
    started_at: datetime | None
    restarts: int  # Docker's count at the last inspection
    last_check: LastCheck | None  # at the first inspection
    is_of_run: bool = False  # the run or, during the run, Docker has started it
    restarted: int = 0  # by Docker, during the run
    first_restart: float | None = None  # since it was last well


class Watch:
    """Judges the containers of a project, from the end of Up until they are well or clearly will not be.

    `baseline` has the containers before the run changed anything; Up ended at `started`.  A new container without a
    health check must stay up for `settle` seconds.  An undecided container gets `limit` seconds, more if a health check
    or a restart needs more, and never more than `run_limit`.  `expected` names the services that must have a container.
    If Up has failed, `up_ended` is false, and containers that Up has not reached do not count.
    """

    def __init__(
        self,
        baseline: Iterable[Inspection],
        *,
        settle: float,
        limit: float,
        run_limit: float,
        started: float,
        expected: Collection[str] = (),
        up_ended: bool = True,
    ) -> None:
        self._baseline = {inspection.id: inspection for inspection in baseline}
        self._settle = settle
        self._started = started
        self._floor = started + limit
        self._ceiling = started + run_limit
        self._expected = expected
        self._up_ended = up_ended
        self._seen: dict[str, _Seen] = {}
        self._logged = ""

    def judge(
        self, inspections: Sequence[Inspection], now: float, *, host_time: str = "", blamed: Collection[str] = ()
    ) -> Verdict:
        """Return the verdict on the containers that were inspected at `now`.

        `host_time` is the host's own time in UTC, in Docker's format; it shows how long a container that was restarted
        before the run has been steady.  `blamed` has the names of the containers that Compose reported as the reason
        why Up failed: their current health decides.
        """
        many = Counter(inspection.container.service for inspection in inspections)
        findings = self._missing(many)
        for inspection in inspections:
            name, service = inspection.container.name, inspection.container.service
            seen = self._remember(inspection, now, host_time)
            finding = self._assess(inspection, seen, now, is_blamed=name in blamed)
            if finding is None:
                seen.first_restart = None  # it is well: a later restart gets its own time
            elif many[service] > 1:
                findings.append(replace(finding, container=name))
            else:
                findings.append(finding)
        return self._conclude(findings, now)

    def _missing(self, many: Mapping[str, int]) -> list[Finding]:
        if not self._up_ended:
            return []
        return [Finding(name, "has no container", has_failed=True) for name in self._expected if not many.get(name)]

    def _remember(self, inspection: Inspection, now: float, host_time: str) -> _Seen:
        container = inspection.container
        seen = self._seen.get(inspection.id)
        if seen is None:
            seen = self._seen[inspection.id] = self._first_seen(inspection, now, host_time)
        elif container.restarts > seen.restarts:
            seen.restarted += container.restarts - seen.restarts
            seen.is_of_run = True
        if seen.started_at != container.started_at:
            seen.started_at, seen.since, seen.is_of_run = container.started_at, now, True
        seen.restarts = container.restarts
        if seen.first_restart is None and (seen.restarted or container.state is ContainerState.RESTARTING):
            seen.first_restart = now
        return seen

    def _first_seen(self, inspection: Inspection, now: float, host_time: str) -> _Seen:
        container, known = inspection.container, self._baseline.get(inspection.id)
        before = known.container if known is not None else None
        if before is None:
            restarted, is_of_run = container.restarts, True
        elif (before.started_at, before.restarts) == (container.started_at, container.restarts):
            restarted, is_of_run = 0, False
        else:  # Docker counts from 0 again when a container is started by hand
            fewer = container.restarts < before.restarts
            restarted, is_of_run = container.restarts - (0 if fewer else before.restarts), True
        since = now if restarted else self._started
        if not is_of_run:
            since = min(since, now - _age(container.started_at, host_time))
        return _Seen(now, since, container.started_at, container.restarts, inspection.last_check, is_of_run, restarted)

    def _assess(self, inspection: Inspection, seen: _Seen, now: float, *, is_blamed: bool) -> Finding | None:
        match inspection.container.state:
            case ContainerState.RUNNING:
                if seen.restarted and _is_over(seen, seen.since):
                    return _looping(inspection, seen, now)
                health = self._assess_health(inspection, seen, now, is_blamed=is_blamed)
                return health or self._assess_steadiness(inspection, seen, now)
            case ContainerState.RESTARTING:
                return self._assess_restarts(inspection, seen, now)
            case ContainerState.EXITED:
                return self._assess_exit(inspection, seen)
            case ContainerState.DEAD:
                return _failed(inspection, "is dead", crashed=True)
            case state:
                is_reached = self._up_ended or state is not ContainerState.CREATED
                return self._await(inspection, state.lower()) if is_reached else None

    def _assess_health(self, inspection: Inspection, seen: _Seen, now: float, *, is_blamed: bool) -> Finding | None:
        check = inspection.health_check or HealthCheck()
        if inspection.container.health is ContainerHealth.STARTING:
            start = seen.since if seen.is_of_run else seen.first
            return self._await(inspection, "starting", start + check.decides_within)
        if inspection.container.health is not ContainerHealth.UNHEALTHY:
            return None
        if seen.is_of_run or is_blamed or _moment(inspection.last_check) != _moment(seen.last_check):
            return _failed(inspection, "is unhealthy")
        # Up may have fixed the cause, and Docker has not checked since then.
        patience = check.period + MARGIN
        if now - seen.first >= patience:
            return _failed(inspection, f"is unhealthy, and was not checked again within {patience:.0f} s")
        return self._await(inspection, "unhealthy before the run", seen.first + patience)

    def _assess_steadiness(self, inspection: Inspection, seen: _Seen, now: float) -> Finding | None:
        if not self._up_ended:
            return None  # Up was waiting for a job to end, or for the health of other containers
        words, required = "restarted", STEADY
        if not seen.restarted and seen.is_of_run:
            words, required = "just started", 0.0 if inspection.container.health else self._settle
        elif not inspection.container.restarts and not seen.restarted:
            return None
        remaining = required - (now - seen.since)
        if remaining <= _ROUNDING:
            return None
        return self._await(inspection, words, seen.since + required, remaining=remaining)

    def _assess_restarts(self, inspection: Inspection, seen: _Seen, now: float) -> Finding:
        is_hopeless = inspection.exit_code in {NOT_EXECUTABLE, NOT_FOUND} and seen.restarted >= HOPELESS_RESTARTS
        if is_hopeless or _is_over(seen, now):
            return _looping(inspection, seen, now)
        window = (now if seen.first_restart is None else seen.first_restart) + RESTART_WINDOW
        return self._await(inspection, "restarting", window)

    def _assess_exit(self, inspection: Inspection, seen: _Seen) -> Finding | None:
        if inspection.exit_code == 0:
            is_job = inspection.policy in {"no", "on-failure"}
            return None if is_job else self._await(inspection, "exited, to be restarted")
        if not self._up_ended and not seen.is_of_run:
            return None
        after = f" after {_times(seen.restarted)}" if seen.restarted else ""
        return _failed(inspection, f"{inspection.end}{after}", crashed=True)

    def _await(
        self,
        inspection: Inspection,
        state: str,
        until: float = 0.0,
        *,
        remaining: float | None = None,
    ) -> Finding:
        """Return the finding that a container has time until `until`, and at least until the time limit of Verify."""
        container = inspection.container
        deadline = min(max(until, self._floor), self._ceiling)
        check = inspection.check_words if container.state is ContainerState.RUNNING else ""
        return Finding(container.service, state, inspection.id, check=check, deadline=deadline, remaining=remaining)

    def _conclude(self, findings: list[Finding], now: float) -> Verdict:
        waited = max(0.0, now - self._started)
        failed = tuple(finding for finding in findings if finding.has_failed)
        if failed:
            return Verdict(Kind.FAILED, failed, waited)
        if not findings:
            return Verdict(Kind.OK, (), waited)
        verdict = Verdict(Kind.WAIT, tuple(findings), waited)
        if any(now >= finding.deadline for finding in findings):
            return verdict.expire()
        log = None
        if waited >= QUIET and verdict.awaited != self._logged:
            log = self._logged = verdict.awaited
        return Verdict(Kind.WAIT, verdict.findings, waited, next_in=_next_in(findings, waited), log=log)


def _next_in(findings: Iterable[Finding], waited: float) -> float:
    """Return the seconds until the next inspection."""
    poll = next((seconds for until, seconds in _POLLS if waited < until), _SLOWEST_POLL)
    nearest = min((finding.remaining for finding in findings if finding.remaining is not None), default=None)
    return poll if nearest is None or nearest >= poll + _SLACK else max(nearest - _INSPECTION, _INSPECTION)


def _is_over(seen: _Seen, moment: float) -> bool:
    """Whether the time to recover from restarts was over at that moment."""
    return seen.first_restart is not None and moment >= seen.first_restart + RESTART_WINDOW


def _moment(check: LastCheck | None) -> str:
    return check.at if check is not None else ""


def _looping(inspection: Inspection, seen: _Seen, now: float) -> Finding:
    began = now if seen.first_restart is None else seen.first_restart
    is_down = inspection.container.state is ContainerState.RESTARTING
    last = f"; the last time it {inspection.end}" if is_down else ""
    return _failed(
        inspection, f"keeps crashing: {_times(seen.restarted)} within {now - began:.0f} s{last}", crashed=True
    )


def _times(restarts: int) -> str:
    return "1 restart" if restarts == 1 else f"{restarts} restarts"


def _failed(inspection: Inspection, words: str, *, crashed: bool = False) -> Finding:
    check = "" if crashed else inspection.check_words
    return Finding(inspection.container.service, words, inspection.id, check=check, has_failed=True, crashed=crashed)


def _age(started_at: datetime | None, host_time: str) -> float:
    """Return the seconds from `started_at` to a later time of the host, in UTC; 0 if either is unknown."""
    try:
        now = datetime.fromisoformat(host_time).replace(tzinfo=UTC)
    except ValueError:
        return 0.0
    return 0.0 if started_at is None else max(0.0, (now - started_at.replace(microsecond=0)).total_seconds())
