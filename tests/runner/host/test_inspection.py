"""What the script sends of a container: read with its types, or refused."""

from datetime import UTC, datetime
from typing import Any

import pytest

from db.containers import Container, ContainerHealth, ContainerState
from runner.host.inspection import HealthCheck, Inspection, LastCheck

SENT: dict[str, Any] = {
    "id": "c1",
    "name": "/shop-web-1",
    "service": "web",
    "image": "web:1",
    "imageId": "sha256:1",
    "hash": "abc",
    "state": "Running",
    "exitCode": 0,
    "oomKilled": False,
    "restarts": 2,
    "startedAt": "2026-01-01T00:00:00.5Z",
    "policy": "on-failure",
    "health": {
        "status": "unhealthy",
        "checkedAt": "2026-01-01T02:00:00+02:00",
        "output": "Connecting…\r\n\x1b[31mrefused\x1b[0m\n",
        "exitCode": 4,
    },
    "healthcheck": {"interval": 1_000_000_000, "timeout": 0, "retries": 0, "startPeriod": 2_500_000_000},
    "ports": ["127.0.0.1:8080->80/tcp"],
}


SENT_WEB = Container(
    name="shop-web-1",
    service="web",
    image="web:1",
    state=ContainerState.RUNNING,
    health=ContainerHealth.UNHEALTHY,
    restarts=2,
    started_at=datetime(2026, 1, 1, 0, 0, 0, 500_000, tzinfo=UTC),
    ports=("127.0.0.1:8080->80/tcp",),
)


def test_everything_that_is_sent_is_read() -> None:
    assert Inspection.read(SENT) == Inspection(
        id="c1",
        container=SENT_WEB,
        image_id="sha256:1",
        hash="abc",
        policy="on-failure",
        health_check=HealthCheck(interval=1.0, timeout=30.0, retries=3, start_period=2.5),
        last_check=LastCheck("2026-01-01T02:00:00+02:00", "Connecting… refused", 4),
    )


def test_a_container_without_a_health_check_and_a_policy() -> None:
    read = Inspection.read({**SENT, "policy": "", "health": None, "healthcheck": None})
    assert (read.container.health, read.health_check, read.last_check, read.policy) == (None, None, None, "no")


def test_dockers_word_for_no_health_check_is_none() -> None:
    assert Inspection.read({**SENT, "health": {"status": "none"}}).container.health is None


def test_an_exit_code_is_shown_of_a_container_that_has_ended_and_known_of_one_that_is_restarted() -> None:
    codes = {}
    for state in ("exited", "dead", "restarting"):
        read = Inspection.read({**SENT, "state": state, "exitCode": 3})
        codes[state] = read.container.exit_code, read.exit_code
    assert codes == {"exited": (3, 3), "dead": (3, 3), "restarting": (None, 3)}


def test_the_empty_port_at_the_end_of_the_list_is_none() -> None:
    assert Inspection.read({**SENT, "ports": ["80/tcp", ""]}).container.ports == ("80/tcp",)


@pytest.mark.parametrize(
    "changed",
    [
        {"id": ""},
        {"id": 7},
        {"service": ["web"]},
        {"name": "n" * 5000},
        {"restarts": "2"},
        {"restarts": True},
        {"restarts": -1},
        {"restarts": 1.5},
        {"restarts": 2**63},
        {"ports": "80"},
        {"ports": [80]},
        {"ports": None},
        {"state": "melted"},
        {"image": "i" * 1025},
        {"startedAt": "soon"},
        {"health": "healthy"},
        {"health": {"status": "unhealthy", "exitCode": "1"}},
        {"health": {"status": "unhealthy", "output": 1}},
        {"healthcheck": []},
        {"healthcheck": {"interval": -1}},
        {"healthcheck": {"interval": 1e9}},
    ],
)
def test_malformed_input_is_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the message names the key, which differs
        Inspection.read({**SENT, **changed})


@pytest.mark.parametrize("value", [None, [], "web", 1])
def test_what_is_no_object_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="container is not an object"):
        Inspection.read(value)


def test_names_cannot_hold_what_a_terminal_obeys() -> None:
    assert Inspection.read({**SENT, "service": "\x1b[2Jweb\n"}).container.service == "web"


@pytest.mark.parametrize(
    ("inspection", "end"),
    [
        (Inspection("c", SENT_WEB, exit_code=3), "exited with code 3"),
        (Inspection("c", SENT_WEB, exit_code=126), "exited with code 126 (its command cannot be executed)"),
        (Inspection("c", SENT_WEB, exit_code=127), "exited with code 127 (its command was not found)"),
        (Inspection("c", SENT_WEB, exit_code=137), "was killed with SIGKILL (exit code 137)"),
        (
            Inspection("c", SENT_WEB, exit_code=137, oom_killed=True),
            "was killed because it ran out of memory (exit code 137)",
        ),
    ],
)
def test_how_a_container_ended(inspection: Inspection, end: str) -> None:
    assert inspection.end == end


@pytest.mark.parametrize(
    ("check", "words"),
    [
        (None, ""),
        (LastCheck("t", "refused", 4), "exited with code 4: refused"),
        (LastCheck("t", "", 1), "exited with code 1, without output"),
        (LastCheck("t", "Health check exceeded timeout (1s)", -1), "failed: Health check exceeded timeout (1s)"),
    ],
)
def test_what_the_last_check_said(check: LastCheck | None, words: str) -> None:
    assert Inspection("c", SENT_WEB, last_check=check).check_words == words


@pytest.mark.parametrize(
    ("check", "seconds"),
    [
        (HealthCheck(interval=30, timeout=30, retries=3), 185),
        (HealthCheck(interval=1, timeout=2, retries=4, start_period=0), 17),
        (HealthCheck(interval=1, timeout=2, retries=4, start_period=60), 80),
    ],
)
def test_a_check_decides_within_its_start_period_and_all_its_retries(check: HealthCheck, seconds: float) -> None:
    assert check.decides_within == seconds
