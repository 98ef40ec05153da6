"""When containers are well: sequences of inspections over time, and the verdict on each."""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest

from db.containers import Container, ContainerHealth, ContainerState
from runner.host.health import Watch
from runner.host.inspection import HealthCheck, Inspection, LastCheck
from runner.host.verdict import Kind, Verdict

ROOT = Path(__file__).parents[3]
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
CHECK = HealthCheck(interval=10.0, timeout=5.0, retries=3)  # decides within 50 s
WELL = "OK"
REFUSED = "Service 'web' is unhealthy: its health check exited with code 4: refused."


class Health(NamedTuple):
    """What Docker's health checks have found."""

    status: ContainerHealth
    last_check: LastCheck | None = None


STARTING, HEALTHY = Health(ContainerHealth.STARTING), Health(ContainerHealth.HEALTHY, LastCheck("c1"))
UNHEALTHY = Health(ContainerHealth.UNHEALTHY, LastCheck("c1", "refused", 4))


def at(health: Health, moment: str) -> Health:
    """The same, found by a check at another moment."""
    assert health.last_check is not None
    return health._replace(last_check=replace(health.last_check, at=moment))


def start(number: float) -> datetime:
    """When a container began to run for the time of that number."""
    return NOON + timedelta(seconds=number)


OF_CONTAINER = {field.name for field in fields(Container)}


def web(health: Health | None = None, state: str = "running", **changes: Any) -> Inspection:
    """A container that runs, does not restart, and has no health check."""
    shown: dict[str, Any] = {"name": "shop-web-1", "service": "web", "image": "web:1", "started_at": start(1)}
    shown |= {name: value for name, value in changes.items() if name in OF_CONTAINER - {"exit_code"}}
    rest = {name: value for name, value in changes.items() if name not in shown}
    status, check = health or (None, None)
    container = Container(**shown, state=ContainerState[state.upper()], health=status)
    return replace(Inspection("w1", container, hash="h", last_check=check), **rest)


def db(**changes: Any) -> Inspection:
    return web(**{"id": "d1", "service": "db", "name": "shop-db-1", **changes})


def checked(health: Health, **changes: Any) -> Inspection:
    """A container with a health check."""
    return web(health=health, health_check=CHECK, **changes)


def always(**changes: Any) -> Inspection:
    return web(**{"policy": "always", **changes})


def crashed(restarts: int, code: int = 1, **changes: Any) -> Inspection:
    """A container that Docker is about to restart."""
    defaults = {"state": "restarting", "restarts": restarts, "exit_code": code, "started_at": start(restarts)}
    return always(**{**defaults, **changes})


def recovered(restarts: int, **changes: Any) -> Inspection:
    """A container that Docker has restarted."""
    return always(**{"restarts": restarts, "started_at": start(restarts + 1), **changes})


class Row(NamedTuple):
    what: str
    looks: Sequence[tuple[float, Inspection | list[Inspection], str]]  # seconds since Up ended, containers, verdict
    baseline: Sequence[Inspection] = ()
    watch: Mapping[str, Any] = MappingProxyType({})
    judge: Mapping[str, Any] = MappingProxyType({})


ROWS = [
    # What has only to run
    Row("no container and none expected", [(0, [], WELL)]),
    Row("a container that the run did not touch is well at once", [(0, web(), WELL)], [web()]),
    Row(
        "a new container must stay up for the settle time",
        [(0, web(), "web (just started)"), (2.9, web(), "web (just started)"), (3, web(), WELL)],
    ),
    Row("the settle time counts from the end of Up, not from the first inspection", [(3, web(), WELL)]),
    Row(
        "a container that was started again is as a new one",
        [(0, web(started_at=start(2)), "web (just started)"), (3, web(started_at=start(2)), WELL)],
        [web()],
    ),
    Row("a settle time of zero", [(0, web(), WELL)], watch={"settle": 0.0}),
    Row("a settle time beyond the limit of Verify", [(11, web(), "web (just started)")], watch={"settle": 15.0}),
    Row(
        "a service without its container",
        [(0, [], "FAILED Service 'web' has no container.")],
        watch={"expected": ["web"]},
    ),
    Row("a service with its container", [(3, web(), WELL)], watch={"expected": ["web"]}),
    Row("a service that Up has not reached", [(0, [], WELL)], watch={"expected": ["web"], "up_ended": False}),
    Row(
        "several containers of a service are named",
        [
            (
                0,
                [web(), web(id="w2", name="shop-web-2", state="dead")],
                "FAILED Service 'web' (container shop-web-2) is dead.",
            ),
        ],
    ),
    # Exits
    Row(
        "an exit with a code fails at once",
        [(0, web(state="exited", exit_code=3), "FAILED Service 'web' exited with code 3.")],
    ),
    Row(
        "a container that exits while it settles",
        [
            (0, web(), "web (just started)"),
            (1, web(state="exited", exit_code=3), "FAILED Service 'web' exited with code 3."),
        ],
    ),
    Row("a job that has succeeded", [(0, web(state="exited"), WELL)]),
    Row(
        "a job that has succeeded after failures",
        [
            (0, crashed(1, policy="on-failure"), "web (restarting)"),
            (1, web(state="exited", policy="on-failure", restarts=1, started_at=start(2)), WELL),
        ],
    ),
    Row(
        "a job whose retries are used up fails at once",
        [
            (
                1,
                web(state="exited", exit_code=3, policy="on-failure", restarts=2, started_at=start(3)),
                "FAILED Service 'web' exited with code 3 after 2 restarts.",
            ),
        ],
    ),
    Row(
        "an exit with 0 that is to be restarted",
        [
            (0, always(state="exited"), "web (exited, to be restarted)"),
            (10, always(state="exited"), "LATE Not up within 10 s: web (exited, to be restarted)."),
        ],
    ),
    Row(
        "a container that was out of memory",
        [
            (
                0,
                web(state="exited", exit_code=137, oom_killed=True),
                "FAILED Service 'web' was killed because it ran out of memory (exit code 137).",
            ),
        ],
    ),
    Row(
        "after a failed Up, a container that it has not reached",
        [(0, web(state="exited", exit_code=3), WELL)],
        [web(state="exited", exit_code=3)],
        {"up_ended": False},
    ),
    Row(
        "after a failed Up, what it was to start, and a job that it has started",
        [(0, [web(state="created"), db()], WELL)],
        watch={"up_ended": False},
    ),
    Row(
        "after a failed Up, a container that it has started",
        [
            (0, web(state="exited", exit_code=3, started_at=start(2)), "FAILED Service 'web' exited with code 3."),
        ],
        [web(state="exited", exit_code=3)],
        {"up_ended": False},
    ),
    # Other states
    *(
        Row(
            f"{state} is awaited until the limit",
            [
                (0, web(state=state), f"web ({state})"),
                (9.9, web(state=state), f"web ({state})"),
                (10, web(state=state), f"LATE Not up within 10 s: web ({state})."),
            ],
            [web(state=state)],
        )
        for state in ("created", "paused", "removing")
    ),
    Row("dead", [(0, web(state="dead"), "FAILED Service 'web' is dead.")], [web(state="dead")]),
    # Restarts
    Row(
        "a container gets 60 seconds from its first restart, however many there are, beyond the limit",
        [
            (1, crashed(1), "web (restarting)"),
            (5, crashed(5), "web (restarting)"),
            (30, crashed(9), "web (restarting)"),
            (60.9, crashed(10), "web (restarting)"),
            (
                61,
                crashed(10),
                "FAILED Service 'web' keeps crashing: 10 restarts within 60 s; the last time it exited with code 1.",
            ),
        ],
    ),
    Row(
        "a container that runs steadily after restarts is well",
        [
            (1, crashed(1), "web (restarting)"),
            (14, crashed(7), "web (restarting)"),
            (20, recovered(7), "web (restarted)"),
            (29.9, recovered(7), "web (restarted)"),
            (30, recovered(7), WELL),
        ],
    ),
    Row(
        "how long a container has run that Docker restarted during Up is not known",
        [(20, recovered(7), "web (restarted)"), (30, recovered(7), WELL)],
    ),
    Row(
        "a container that recovered just in time must still stay up",
        [
            (1, crashed(1), "web (restarting)"),
            (59, recovered(9), "web (restarted)"),
            (65, recovered(9), "web (restarted)"),
            (69, recovered(9), WELL),
        ],
    ),
    Row(
        "a container that crashes when its time is over",
        [
            (1, crashed(1), "web (restarting)"),
            (59, recovered(9), "web (restarted)"),
            (
                65,
                crashed(10),
                "FAILED Service 'web' keeps crashing: 10 restarts within 64 s; the last time it exited with code 1.",
            ),
        ],
    ),
    Row(
        "a restart between two inspections after its time was over",
        [
            (1, crashed(1), "web (restarting)"),
            (59, recovered(9), "web (restarted)"),
            (65, recovered(10), "FAILED Service 'web' keeps crashing: 10 restarts within 64 s."),
        ],
    ),
    Row(
        "a crash loop with a health check that never gets to decide",
        [
            (1, recovered(1, health=STARTING, health_check=CHECK), "web (starting)"),
            (41, recovered(2, health=STARTING, health_check=CHECK), "web (starting)"),
            (
                81,
                recovered(3, health=STARTING, health_check=CHECK),
                "FAILED Service 'web' keeps crashing: 3 restarts within 80 s.",
            ),
        ],
    ),
    Row(
        "a container that was well in between gets its time again",
        [
            (0, [crashed(1), db(state="created")], "web (restarting), db (created)"),
            (1, [recovered(1), db(state="created")], "web (restarted), db (created)"),
            (11, [recovered(1), db(state="created")], "db (created)"),
            (90, [crashed(2), db(state="created")], "web (restarting), db (created)"),
            (100, [recovered(2), db()], "web (restarted)"),
            (110, [recovered(2), db()], WELL),
        ],
        watch={"limit": 300.0},
    ),
    Row(
        "a command that was not found fails after a few restarts",
        [
            (0, crashed(1, 127), "web (restarting)"),
            (1, crashed(2, 127), "web (restarting)"),
            (
                2,
                crashed(3, 127),
                "FAILED Service 'web' keeps crashing: 3 restarts within 2 s; "
                "the last time it exited with code 127 (its command was not found).",
            ),
        ],
    ),
    Row(
        "a command that cannot be executed fails after a few restarts",
        [
            (
                2,
                crashed(4, 126),
                "FAILED Service 'web' keeps crashing: 4 restarts within 0 s; "
                "the last time it exited with code 126 (its command cannot be executed).",
            ),
        ],
    ),
    Row(
        "a job that is to be restarted without end never succeeds",
        [
            (0, crashed(1, 0), "web (restarting)"),
            (
                60,
                crashed(10, 0),
                "FAILED Service 'web' keeps crashing: 10 restarts within 60 s; the last time it exited with code 0.",
            ),
        ],
    ),
    Row(
        "a crash loop from before the run is still one",
        [
            (0, crashed(12), "web (restarting)"),
            (59, crashed(12), "web (restarting)"),
            (
                60,
                crashed(13),
                "FAILED Service 'web' keeps crashing: 1 restart within 60 s; the last time it exited with code 1.",
            ),
        ],
        [crashed(12)],
    ),
    Row(
        "a crash loop from before the run, inspected while it runs",
        [
            (0, recovered(2, started_at=start(9.5)), "web (restarted)"),
        ],
        [recovered(2, started_at=start(9.5))],
        judge={"host_time": "2026-01-01T12:00:10"},
    ),
    Row(
        "a container that has been steady since restarts before the run",
        [
            (0, recovered(2, started_at=start(0.5)), WELL),
        ],
        [recovered(2, started_at=start(0.5))],
        judge={"host_time": "2026-01-01T12:00:10"},
    ),
    Row(
        "restarts before the run at an unknown time",
        [
            (0, recovered(2), "web (restarted)"),
            (10, recovered(2), WELL),
        ],
        [recovered(2)],
    ),
    Row(
        "restarts before the run are not counted",
        [
            (0, crashed(8, 127), "web (restarting)"),
            (1, crashed(9, 127), "web (restarting)"),
        ],
        [recovered(7)],
    ),
    Row(
        "Docker counts from 0 again after a start by hand",
        [
            (
                0,
                crashed(3, 127),
                "FAILED Service 'web' keeps crashing: 3 restarts within 0 s; "
                "the last time it exited with code 127 (its command was not found).",
            ),
        ],
        [recovered(7)],
    ),
    Row(
        "restarts in the watch count where a start by hand hides them",
        [
            (3, recovered(0, started_at=start(99)), WELL),
            (4, crashed(1), "web (restarting)"),
            (5, recovered(1), "web (restarted)"),
            (15, recovered(1), WELL),
        ],
        [recovered(7)],
    ),
    Row(
        "the run has no more time for restarts",
        [
            (1, crashed(1), "web (restarting)"),
            (20, crashed(8), "LATE Not up within 20 s: web (restarting)."),
        ],
        watch={"run_limit": 20.0},
    ),
    # Health checks
    Row("a healthy container need not settle", [(0, checked(HEALTHY), WELL)], watch={"settle": 20.0}),
    Row("a healthy container that the run did not touch", [(0, checked(HEALTHY), WELL)], [checked(HEALTHY)]),
    Row(
        "a healthy container must stay up after a restart",
        [
            (0, recovered(1, health=HEALTHY), "web (restarted)"),
            (10, recovered(1, health=HEALTHY), WELL),
        ],
    ),
    Row("a failing health check of a container that the run started", [(0, checked(UNHEALTHY), f"FAILED {REFUSED}")]),
    Row(
        "a health check without a word",
        [
            (
                0,
                checked(Health(ContainerHealth.UNHEALTHY, LastCheck("c1", "", 1))),
                "FAILED Service 'web' is unhealthy: its health check exited with code 1, without output.",
            ),
        ],
    ),
    Row(
        "a slow health check gets the time that it needs, beyond the limit",
        [
            (0, checked(STARTING), "web (starting)"),
            (49.9, checked(STARTING), "web (starting)"),
            (49.95, checked(HEALTHY), WELL),
        ],
    ),
    Row(
        "a health check that never decides",
        [
            (0, checked(STARTING), "web (starting)"),
            (50, checked(STARTING), "LATE Not up within 50 s: web (starting)."),
        ],
    ),
    Row(
        "a health check that never decides has said something",
        [
            (
                50,
                checked(UNHEALTHY._replace(status=ContainerHealth.STARTING)),
                "LATE Not up within 50 s: web (starting). The health check of 'web' exited with code 4: refused.",
            ),
        ],
    ),
    Row(
        "a health check that needs less than the limit still gets the limit",
        [
            (60, checked(STARTING), "web (starting)"),
            (300, checked(STARTING), "LATE Not up within 300 s: web (starting)."),
        ],
        watch={"limit": 300.0},
    ),
    Row(
        "a health check gets no more than the time of the run",
        [
            (20, checked(STARTING), "LATE Not up within 20 s: web (starting)."),
        ],
        watch={"run_limit": 20.0},
    ),
    Row(
        "a limit beyond the time of the run",
        [
            (20, web(state="paused"), "LATE Not up within 20 s: web (paused)."),
        ],
        watch={"run_limit": 20.0, "limit": 300.0},
    ),
    Row("Docker's defaults, where the health check is unknown", [(184, web(health=STARTING), "web (starting)")]),
    Row(
        "a container that started before the run is given its time from now",
        [
            (30, checked(STARTING), "web (starting)"),
            (79, checked(STARTING), "web (starting)"),
            (80, checked(STARTING), "LATE Not up within 80 s: web (starting)."),
        ],
        [checked(STARTING)],
    ),
    Row(
        "a restarted container is given its time from the restart",
        [
            (0, recovered(1, health=STARTING, health_check=CHECK), "web (starting)"),
            (40, recovered(2, health=STARTING, health_check=CHECK), "web (starting)"),
            (89, recovered(2, health=STARTING, health_check=CHECK), "web (starting)"),
        ],
    ),
    Row(
        "an unhealthy container that the run did not start counts after a check",
        [
            (0, checked(UNHEALTHY), "web (unhealthy before the run)"),
            (9, checked(at(UNHEALTHY, "c2")), f"FAILED {REFUSED}"),
        ],
        [checked(UNHEALTHY)],
    ),
    Row(
        "an unhealthy container that has recovered",
        [
            (0, checked(UNHEALTHY), "web (unhealthy before the run)"),
            (9, checked(at(HEALTHY, "c2")), WELL),
        ],
        [checked(UNHEALTHY)],
    ),
    Row(
        "a check while images were pulled is too early: Up may have started what was missing",
        [
            (0, checked(at(UNHEALTHY, "c2")), "web (unhealthy before the run)"),
            (9, checked(at(HEALTHY, "c3")), WELL),
        ],
        [checked(UNHEALTHY)],
    ),
    Row(
        "an unhealthy container that is not checked any more",
        [
            (0, checked(UNHEALTHY), "web (unhealthy before the run)"),
            (19, checked(UNHEALTHY), "web (unhealthy before the run)"),
            (
                20,
                checked(UNHEALTHY),
                "FAILED Service 'web' is unhealthy, and was not checked again within 20 s: "
                "its health check exited with code 4: refused.",
            ),
        ],
        [checked(UNHEALTHY)],
    ),
    Row(
        "times of the health log are compared for equality, whatever zone they are in",
        [
            (0, checked(at(UNHEALTHY, "2026-01-01T09:00:00+09:00")), "web (unhealthy before the run)"),
            (9, checked(at(UNHEALTHY, "2026-01-01T00:00:10Z")), f"FAILED {REFUSED}"),
        ],
        [checked(at(UNHEALTHY, "2026-01-01T09:00:00+09:00"))],
    ),
    Row(
        "an unhealthy container for which Up has failed",
        [(0, checked(UNHEALTHY), f"FAILED {REFUSED}")],
        [checked(UNHEALTHY)],
        {"up_ended": False},
        {"blamed": ["shop-web-1"]},
    ),
    # Several
    Row(
        "what has failed is not hidden by what is awaited",
        [
            (0, [db(health=STARTING), web(state="dead")], "FAILED Service 'web' is dead."),
        ],
    ),
    Row(
        "everything that has failed is named",
        [
            (
                0,
                [db(state="exited", exit_code=4), web(state="dead")],
                "FAILED Service 'db' exited with code 4. Service 'web' is dead.",
            ),
        ],
    ),
    Row(
        "everything that is awaited is named when the time is up",
        [
            (10, [db(state="paused"), web(state="created")], "LATE Not up within 10 s: db (paused), web (created)."),
        ],
    ),
]


def test_ansible_can_import_what_it_needs_with_the_standard_library_alone() -> None:
    modules = "runner.host.health, runner.host.compose_words, runner.host.pull_progress"
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import {modules}"
    subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True)


def described(verdict: Verdict) -> str:
    """The verdict in the words of the table."""
    match verdict.kind:
        case Kind.OK:
            return WELL
        case Kind.WAIT:
            return verdict.awaited
        case Kind.FAILED:
            return f"{'LATE' if verdict.late else 'FAILED'} {verdict.message()}"


def watch(baseline: Sequence[Inspection] = (), **changes: Any) -> Watch:
    return Watch(baseline, **{"settle": 3.0, "limit": 10.0, "run_limit": 1800.0, "started": 1000.0, **changes})


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.what)
def test_verdict(row: Row) -> None:
    watching = watch(row.baseline, **row.watch)
    for seconds, seen, expected in row.looks:
        containers = seen if isinstance(seen, list) else [seen]
        verdict = watching.judge(containers, 1000.0 + seconds, **row.judge)
        assert (seconds, described(verdict)) == (seconds, expected)


def played_until_decided(watching: Watch, at: Any, most: float = 3600.0) -> tuple[float, Verdict]:
    """Inspect whenever the verdict asks for it; gives the seconds that it took."""
    seconds = 0.0
    while seconds < most:
        verdict = watching.judge([at(seconds)], 1000.0 + seconds)
        if verdict.kind is not Kind.WAIT:
            return seconds, verdict
        assert verdict.next_in > 0
        seconds += verdict.next_in
    raise AssertionError("never decided")


@pytest.mark.parametrize("lifetime", [0.05, 1.0, 4.0, 9.0])
def test_every_crash_loop_is_reported_within_two_minutes(lifetime: float) -> None:
    def at(seconds: float) -> Inspection:
        """As Docker does it: the delay doubles from 0.1 s up to a minute."""
        restarts, began, delay = 0, 0.0, 0.1
        while seconds >= began + lifetime:
            restarts += 1
            if seconds < began + lifetime + delay:
                return crashed(restarts)
            began, delay = began + lifetime + delay, min(60.0, delay * 2)
        return recovered(restarts)

    seconds, verdict = played_until_decided(watch(settle=10.0, limit=300.0), at)
    assert verdict.kind is Kind.FAILED
    assert not verdict.late
    assert seconds < 120


def test_the_next_inspection_is_when_a_container_has_stayed_up() -> None:
    watching = watch(settle=0.75)
    assert watching.judge([web()], 1000.0).next_in == pytest.approx(0.2)
    assert watching.judge([web()], 1000.5).next_in == pytest.approx(0.24)  # to look takes some time too
    assert watching.judge([web()], 1000.75).kind is Kind.OK


@pytest.mark.parametrize(("seconds", "next_in"), [(0, 0.2), (4.9, 0.2), (5, 0.5), (29.9, 0.5), (30, 1.0), (200, 1.0)])
def test_inspections_become_rarer(seconds: float, next_in: float) -> None:
    assert watch(limit=300.0).judge([checked(STARTING)], 1000.0 + seconds).next_in == next_in


def test_the_log_names_what_is_awaited_when_it_changes() -> None:
    watching = watch()
    looks = [(0.2, STARTING), (0.9, STARTING), (1.0, STARTING)]
    lines = [watching.judge([checked(health), db(state="created")], 1000.0 + at).log for at, health in looks]
    lines.append(watching.judge([checked(HEALTHY), db(state="created")], 1001.2).log)
    assert lines == [None, "web (starting), db (created)", None, "db (created)"]


def test_a_crash_loop_is_reported_with_its_last_log_line() -> None:
    watching = watch()
    watching.judge([crashed(1)], 1000.0)
    verdict = watching.judge([crashed(10)], 1060.0)
    assert verdict.message({"w1": "no database"}).endswith("exited with code 1: no database.")
