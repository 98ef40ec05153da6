"""What `docker inspect` showed of a container, as the script on the host sends it.  Pure.

The host is not trusted: what is not of the expected shape is a ValueError.  Ansible's process imports this module, so
it uses the standard library only.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from runner.host.text import one_line, printable

MARGIN = 5.0  # seconds that a busy host may need in addition to run a health check
NOT_EXECUTABLE, NOT_FOUND = 126, 127  # exit codes of shells and of Docker's init
_CAUSES = {NOT_EXECUTABLE: "its command cannot be executed", NOT_FOUND: "its command was not found"}
_KILLED = 137  # 128 + SIGKILL
_NANOSECONDS = 1e9
_LONGEST = 4096  # characters of one value
_LONGEST_OUTPUT = 64 * 1024  # characters; Docker keeps 4096 bytes of a health check
_CUT_OUTPUT = 500  # characters that the script sends of it


@dataclass(frozen=True)
class HealthCheck:
    """How Docker checks the health of a container; all times in seconds."""

    interval: float = 30.0
    timeout: float = 30.0
    retries: int = 3
    start_period: float = 0.0

    @classmethod
    def read(cls, value: object) -> "HealthCheck | None":
        """The object with nanoseconds in it, where 0 stands for Docker's default.  Raises: ValueError."""
        if value is None:
            return None
        entries = _mapping(value, "healthcheck")
        interval, timeout, start_period = (
            _number(entries, key) / _NANOSECONDS for key in ("interval", "timeout", "startPeriod")
        )
        return cls(
            interval or cls.interval, timeout or cls.timeout, _number(entries, "retries") or cls.retries, start_period
        )

    @property
    def period(self) -> float:
        """Seconds from the end of one check to the end of the next at the latest."""
        return self.interval + self.timeout

    @property
    def decides_within(self) -> float:
        """Seconds from the start of the container after which Docker has decided."""
        # A check that begins within the start period does not count, and may end a whole timeout after it.
        uncounted = self.start_period + self.period if self.start_period else 0.0
        return uncounted + self.retries * self.period + MARGIN


@dataclass(frozen=True)
class Health:
    """What Docker's health checks have found."""

    status: str  # starting, healthy, unhealthy
    failing_streak: int = 0
    checked_at: str = ""  # when the last check began, in the daemon's own time zone; only good for a comparison
    output: str = ""  # of the last check, one line
    exit_code: int | None = None  # of the last check; -1 where Docker ended it

    @classmethod
    def read(cls, value: object) -> "Health | None":
        """The object of a container; None where it has no health check.  Raises: ValueError."""
        if value is None:
            return None
        entries = _mapping(value, "health")
        status = _text(entries, "status").lower()
        if status in {"", "none"}:
            return None
        code = entries.get("exitCode")
        return cls(
            status=status,
            failing_streak=_number(entries, "failingStreak"),
            checked_at=_text(entries, "checkedAt"),
            output=_output(_text(entries, "output", most=_LONGEST_OUTPUT)),
            exit_code=None if code is None else _number(entries, "exitCode", least=-1),
        )

    @property
    def last_check(self) -> str:
        """What the last check said, to be put behind "its health check"; empty where there was none."""
        if not self.checked_at:
            return ""
        words = f": {self.output}" if self.output else ", without output"
        if self.exit_code is None or self.exit_code < 0:
            return f"failed{words}"
        return f"exited with code {self.exit_code}{words}"


@dataclass(frozen=True)
class Inspection:
    """What `docker inspect` showed of one container at one moment."""

    id: str
    service: str
    name: str = ""
    image: str = ""
    image_id: str = ""
    hash: str = ""  # Compose's config hash; a container without one is not managed by Compose
    number: int = 0  # of the container within its service, from 1
    state: str = "running"  # Docker's own word
    exit_code: int = 0
    oom_killed: bool = False
    restarts: int = 0  # by Docker, since the container was last started by hand
    started_at: str = ""  # UTC
    finished_at: str = ""  # UTC
    one_off: bool = False  # made by `compose run`
    policy: str = "no"  # no, always, unless-stopped, on-failure
    max_retries: int = 0  # of on-failure; 0: without end
    health: Health | None = None
    health_check: HealthCheck | None = None
    ports: tuple[str, ...] = ()

    @classmethod
    def read(cls, value: object) -> "Inspection":
        """The JSON object that the script sends for a container.  Raises: ValueError for anything else."""
        entries = _mapping(value, "container")
        ports = entries.get("ports") or []
        if not isinstance(ports, list) or not all(isinstance(port, str) and len(port) <= _LONGEST for port in ports):
            raise ValueError("ports is not a list of strings")
        identity = _text(entries, "id")
        if not identity:
            raise ValueError("id is empty")
        return cls(
            id=identity,
            service=_text(entries, "service"),
            name=_text(entries, "name").removeprefix("/"),
            image=_text(entries, "image"),
            image_id=_text(entries, "imageId"),
            hash=_text(entries, "hash"),
            number=_number(entries, "number"),
            state=_text(entries, "state").lower(),
            exit_code=_number(entries, "exitCode", least=-(2**31)),
            oom_killed=_boolean(entries, "oomKilled"),
            restarts=_number(entries, "restarts"),
            started_at=_text(entries, "startedAt"),
            finished_at=_text(entries, "finishedAt"),
            one_off=_boolean(entries, "oneOff"),
            policy=_text(entries, "policy").lower() or "no",
            max_retries=_number(entries, "maxRetries"),
            health=Health.read(entries.get("health")),
            health_check=HealthCheck.read(entries.get("healthcheck")),
            ports=tuple(ports),
        )

    @property
    def is_managed(self) -> bool:
        """Whether it is a container of a service, as Compose sees it."""
        return bool(self.hash) and not self.one_off

    @property
    def end(self) -> str:
        """How it ended, to be put behind "Service 'web'"."""
        if self.oom_killed:
            return f"was killed because it ran out of memory (exit code {self.exit_code})"
        if self.exit_code == _KILLED:
            return f"was killed with SIGKILL (exit code {self.exit_code})"
        because = _CAUSES.get(self.exit_code)
        return f"exited with code {self.exit_code}" + (f" ({because})" if because else "")


def _output(text: str) -> str:
    """The words of a health check on one line, with a mark where the script has cut them."""
    return one_line(text + "…" if len(text) >= _CUT_OUTPUT else text)


def _mapping(value: object, name: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{name} is not an object")
    return value


def _text(entries: Mapping[str, Any], key: str, most: int = _LONGEST) -> str:
    value = entries.get(key)
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > most:
        raise ValueError(f"{key} is not a string of at most {most} characters")
    return printable(value) if most == _LONGEST else value


def _number(entries: Mapping[str, Any], key: str, least: int = 0) -> int:
    value = entries.get(key)
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 2**63:
        raise ValueError(f"{key} is not a whole number from {least}")
    return value


def _boolean(entries: Mapping[str, Any], key: str) -> bool:
    value = entries.get(key)
    if not isinstance(value, bool | None):
        raise ValueError(f"{key} is neither true nor false")
    return bool(value)
