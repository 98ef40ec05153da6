"""Containers are read from what a host reports, which may be anything."""

from datetime import UTC, datetime
from typing import Any

import pytest

from db.containers import (
    MAX_CONTAINERS,
    MAX_PORTS,
    MAX_SIZE,
    MAX_TEXT,
    Container,
    ContainerHealth,
    ContainerState,
    read_all,
)

REPORTED = {
    "name": "shop-web-1", "service": "web", "image": "web:1", "state": "running", "health": "healthy",
    "exitCode": None, "restarts": 2, "startedAt": "2026-01-31T12:00:00.123456789Z",
    "ports": ["127.0.0.1:8080->80/tcp", "443/tcp"],
}  # fmt: skip
NOON = datetime(2026, 1, 31, 12, 0, 0, 123456, tzinfo=UTC)


def test_a_container_is_read_from_dockers_words() -> None:
    assert Container.read(REPORTED) == Container(
        name="shop-web-1",
        service="web",
        image="web:1",
        state=ContainerState.RUNNING,
        health=ContainerHealth.HEALTHY,
        exit_code=None,
        restarts=2,
        started_at=NOON,
        ports=("127.0.0.1:8080->80/tcp", "443/tcp"),
    )


@pytest.mark.parametrize("state", ["created", "running", "paused", "restarting", "removing", "exited", "dead"])
def test_every_state_of_docker_is_known(state: str) -> None:
    assert Container.read({**REPORTED, "state": state}).state.value == state.upper()


@pytest.mark.parametrize("health", [None, "", "none"])
def test_without_a_health_check_there_is_no_health(health: str | None) -> None:
    assert Container.read({**REPORTED, "health": health}).health is None


@pytest.mark.parametrize(
    ("reported", "started_at"),
    [
        ("0001-01-01T00:00:00Z", None),
        (None, None),
        ("2026-01-31T13:30:00.123456+01:30", NOON),
        ("2026-01-31T12:00:00Z", NOON.replace(microsecond=0)),
    ],
)
def test_a_start_is_a_time_in_utc_or_never_was(reported: str | None, started_at: datetime | None) -> None:
    assert Container.read({**REPORTED, "startedAt": reported}).started_at == started_at


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": ""},
        {"name": None},
        {"name": 5},
        {"name": "x" * (MAX_TEXT + 1)},
        {"name": "a\nb"},
        {"name": "\x1b[2J"},
        {"name": "\ud800"},
        {"name": "\0"},
        {"service": ""},
        {"service": ["web"]},
        {"image": None},
        {"image": "x" * (MAX_TEXT + 1)},
        {"state": "melted"},
        {"state": None},
        {"state": ["running"]},
        {"health": "fine"},
        {"health": {}},
        {"exitCode": "0"},
        {"exitCode": True},
        {"exitCode": 1.5},
        {"exitCode": 2**31},
        {"restarts": None},
        {"restarts": -1},
        {"restarts": 10**30},
        {"startedAt": "soon"},
        {"startedAt": "2026-01-31T12:00:00"},
        {"startedAt": 5},
        {"startedAt": "0001-01-01T00:00:00+01:00"},
        {"ports": None},
        {"ports": "80/tcp"},
        {"ports": [80]},
        {"ports": [""]},
        {"ports": ["80/tcp"] * (MAX_PORTS + 1)},
        {"ports": ["x" * (MAX_TEXT + 1)]},
    ],
)
def test_what_is_malformed_or_too_long_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(wrong))} "):
        Container.read({**REPORTED, **wrong})


@pytest.mark.parametrize("junk", [None, "web", 5, [], ["name"]])
def test_what_is_no_object_is_refused(junk: object) -> None:
    with pytest.raises(ValueError, match="it is no object"):
        Container.read(junk)


@pytest.mark.parametrize("missing", ["name", "service", "image", "state", "restarts", "ports"])
def test_what_is_missing_is_refused(missing: str) -> None:
    with pytest.raises(ValueError, match=missing):
        Container.read({key: value for key, value in REPORTED.items() if key != missing})


def test_a_report_is_read_as_far_as_it_can_be() -> None:
    web = Container.read(REPORTED)
    assert read_all([REPORTED, {**REPORTED, "state": "?"}, REPORTED])[0] == [web, web]
    assert read_all({"web": REPORTED}) == ([], ["it is no list"])
    assert read_all(None) == ([], [])
    read, problems = read_all([REPORTED] * (MAX_CONTAINERS + 1))
    assert (len(read), len(problems)) == (MAX_CONTAINERS, 1)


def test_a_report_is_read_up_to_a_size() -> None:
    large = {**REPORTED, "ports": ["x" * MAX_TEXT] * 100}
    read, problems = read_all([large] * 10)
    assert sum(container.size for container in read) <= MAX_SIZE
    assert 0 < len(read) < 10
    assert problems == [f"together they have more than {MAX_SIZE} characters"]
