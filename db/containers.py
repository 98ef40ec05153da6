"""Containers as a host reports them, typed from the report to the API.  How they are stored is in `db.stored`.

Standard library only: Ansible's own process imports it too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TypeVar

MAX_CONTAINERS = 1000  # of one report
MAX_TEXT = 1024  # characters of a name, a service, an image or a port
MAX_SIZE = 512 * 1024  # characters of all texts of one report: every list of runs reads them
MAX_PORTS = 10_000  # of one container; each port of a range is one
MAX_INTEGER = 2**31 - 1  # GraphQL's Int
ZERO_TIME = "0001-01-01T00:00:00Z"  # Go's, for a container that never started

Word = TypeVar("Word", bound=StrEnum)


class ContainerState(StrEnum):
    """The state of a container, in Docker's terms."""

    CREATED = "CREATED"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    RESTARTING = "RESTARTING"
    REMOVING = "REMOVING"
    EXITED = "EXITED"
    DEAD = "DEAD"


class ContainerHealth(StrEnum):
    """The result of a container's health check, in Docker's terms."""

    STARTING = "STARTING"
    HEALTHY = "HEALTHY"
    UNHEALTHY = "UNHEALTHY"


@dataclass(frozen=True)
class Container:
    """One container of a project.  `health` is None without a health check, `exit_code` while the container runs."""

    name: str
    service: str
    image: str
    state: ContainerState
    health: ContainerHealth | None = None
    exit_code: int | None = None
    restarts: int = 0
    started_at: datetime | None = None  # None: never
    ports: tuple[str, ...] = ()  # as Docker shows them: 127.0.0.1:8080->80/tcp

    @classmethod
    def read(cls, reported: object) -> "Container":
        """Return the container that a host reports as a JSON object, with Docker's names for states.

        Raises: ValueError for anything malformed, too long, or unprintable: a host is not trusted.
        """
        if not isinstance(reported, Mapping):
            raise ValueError("it is no object")
        exit_code = reported.get("exitCode")
        health = reported.get("health")
        ports = reported.get("ports")
        if not isinstance(ports, Sequence) or isinstance(ports, str) or len(ports) > MAX_PORTS:
            raise ValueError(f"ports is no list of at most {MAX_PORTS}")
        return cls(
            name=_text("name", reported.get("name")),
            service=_text("service", reported.get("service")),
            image=_text("image", reported.get("image"), is_optional=True),
            state=_word(ContainerState, "state", reported.get("state")),
            health=None if health in (None, "", "none") else _word(ContainerHealth, "health", health),
            exit_code=None if exit_code is None else _integer("exitCode", exit_code, -MAX_INTEGER - 1),
            restarts=_integer("restarts", reported.get("restarts"), 0),
            started_at=_time("startedAt", reported.get("startedAt")),
            ports=tuple(_text("ports", port) for port in ports),
        )

    @property
    def size(self) -> int:
        """The number of characters in all of its strings."""
        return len(self.name) + len(self.service) + len(self.image) + sum(map(len, self.ports))

    def write(self) -> dict[str, Any]:
        """Return a JSON object from which `read` makes the same container."""
        return {
            "name": self.name,
            "service": self.service,
            "image": self.image,
            "state": self.state.lower(),
            "health": None if self.health is None else self.health.lower(),
            "exitCode": self.exit_code,
            "restarts": self.restarts,
            "startedAt": None if self.started_at is None else self.started_at.isoformat(),
            "ports": list(self.ports),
        }


def read_all(reported: object) -> tuple[list[Container], list[str]]:
    """Return the containers of a report, and one message for each that cannot be read."""
    if not isinstance(reported, list):
        return [], [] if reported is None else ["it is no list"]
    containers: list[Container] = []
    problems = []
    room = MAX_SIZE
    if len(reported) > MAX_CONTAINERS:
        problems.append(f"there are {len(reported)}, and at most {MAX_CONTAINERS} are read")
    for each in reported[:MAX_CONTAINERS]:
        try:
            container = Container.read(each)
        except ValueError as error:
            problems.append(str(error))
            continue
        room -= container.size
        if room < 0:
            problems.append(f"together they have more than {MAX_SIZE} characters")
            break
        containers.append(container)
    return containers, problems


def _text(name: str, value: object, *, is_optional: bool = False) -> str:
    if not isinstance(value, str) or len(value) > MAX_TEXT or not value.isprintable() or not (value or is_optional):
        raise ValueError(f"{name} is no printable text of at most {MAX_TEXT} characters")
    return value


def _word(kind: type[Word], name: str, value: object) -> Word:
    if not isinstance(value, str) or value.upper() not in kind.__members__:
        raise ValueError(f"{name} is none of {', '.join(kind.__members__).lower()}")
    return kind[value.upper()]


def _integer(name: str, value: object, least: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= MAX_INTEGER:
        raise ValueError(f"{name} is no integer from {least} to {MAX_INTEGER}")
    return value


def _time(name: str, value: object) -> datetime | None:
    if value is None or value == ZERO_TIME:
        return None
    try:
        time = datetime.fromisoformat(_text(name, value))
        if time.tzinfo is not None:
            return time.astimezone(UTC)
    except (ValueError, OverflowError) as error:  # beyond the years 1 to 9999 in UTC
        raise ValueError(f"{name} is no time of RFC 3339") from error
    raise ValueError(f"{name} has no time zone")
