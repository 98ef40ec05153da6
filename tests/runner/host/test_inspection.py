"""What the script sends of a container: read with its types, or refused."""

from typing import Any

import pytest

from runner.host.inspection import Health, HealthCheck, Inspection

SENT: dict[str, Any] = {
    "id": "c1",
    "name": "/shop-web-1",
    "service": "web",
    "image": "web:1",
    "imageId": "sha256:1",
    "hash": "abc",
    "number": 1,
    "state": "Running",
    "exitCode": 0,
    "oomKilled": False,
    "restarts": 2,
    "startedAt": "2026-01-01T00:00:00.5Z",
    "finishedAt": "0001-01-01T00:00:00Z",
    "oneOff": False,
    "policy": "on-failure",
    "maxRetries": 3,
    "health": {
        "status": "unhealthy",
        "failingStreak": 3,
        "checkedAt": "2026-01-01T02:00:00+02:00",
        "output": "Connecting…\r\n\x1b[31mrefused\x1b[0m\n",
        "exitCode": 4,
    },
    "healthcheck": {"interval": 1_000_000_000, "timeout": 0, "retries": 0, "startPeriod": 2_500_000_000},
    "ports": ["127.0.0.1:8080->80/tcp"],
}


def test_everything_that_is_sent_is_read() -> None:
    assert Inspection.read(SENT) == Inspection(
        id="c1",
        name="shop-web-1",
        service="web",
        image="web:1",
        image_id="sha256:1",
        hash="abc",
        number=1,
        state="running",
        restarts=2,
        started_at="2026-01-01T00:00:00.5Z",
        finished_at="0001-01-01T00:00:00Z",
        policy="on-failure",
        max_retries=3,
        health=Health("unhealthy", 3, "2026-01-01T02:00:00+02:00", "Connecting… refused", 4),
        health_check=HealthCheck(interval=1.0, timeout=30.0, retries=3, start_period=2.5),
        ports=("127.0.0.1:8080->80/tcp",),
    )


def test_a_container_without_a_health_check_and_a_policy() -> None:
    read = Inspection.read({"id": "c1", "service": "web", "state": "exited", "policy": "", "health": None})
    assert (read.health, read.health_check, read.policy, read.exit_code) == (None, None, "no", 0)


def test_dockers_word_for_no_health_check_is_none() -> None:
    assert Inspection.read({**SENT, "health": {"status": "none"}}).health is None


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
        {"oneOff": "True"},
        {"ports": "80"},
        {"ports": [80]},
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
    assert Inspection.read({**SENT, "service": "\x1b[2Jweb\n"}).service == "web"


@pytest.mark.parametrize(
    ("inspection", "end"),
    [
        (Inspection("c", "w", exit_code=3), "exited with code 3"),
        (Inspection("c", "w", exit_code=126), "exited with code 126 (its command cannot be executed)"),
        (Inspection("c", "w", exit_code=127), "exited with code 127 (its command was not found)"),
        (Inspection("c", "w", exit_code=137), "was killed with SIGKILL (exit code 137)"),
        (
            Inspection("c", "w", exit_code=137, oom_killed=True),
            "was killed because it ran out of memory (exit code 137)",
        ),
    ],
)
def test_how_a_container_ended(inspection: Inspection, end: str) -> None:
    assert inspection.end == end


@pytest.mark.parametrize(
    ("health", "words"),
    [
        (Health("starting"), ""),
        (Health("unhealthy", 1, "t", "refused", 4), "exited with code 4: refused"),
        (Health("unhealthy", 1, "t", "", 1), "exited with code 1, without output"),
        (
            Health("unhealthy", 1, "t", "Health check exceeded timeout (1s)", -1),
            "failed: Health check exceeded timeout (1s)",
        ),
    ],
)
def test_what_the_last_check_said(health: Health, words: str) -> None:
    assert health.last_check == words


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
