"""The result of `docker inspect` for a container, as the script on the host sends it.  Pure.

The part that the API shows is a `Container`; `runner.host.health` and the comparison need the rest.  The host is not
trusted: anything of an unexpected shape is a ValueError.  Ansible's process imports this module, so it uses the
standard library only.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from db.containers import Container
from runner.host.text import one_line, printable

MARGIN = 5.0  # seconds that a busy host may need in addition to run a health check
NOT_EXECUTABLE, NOT_FOUND = 126, 127  # exit codes of shells and of Docker's init
_CAUSES = {NOT_EXECUTABLE: "its command cannot be executed", NOT_FOUND: "its command was not found"}
ENDED = {"exited", "dead"}  # Docker's states in which the API shows an exit code
_KILLED = 137  # 128 + SIGKILL
_NANOSECONDS = 1e9
_LONGEST = 4096  # characters of one value; the API may show fewer, see `Container`
_LONGEST_OUTPUT = 64 * 1024  # characters; Docker keeps 4096 bytes of a health check's output
_CUT_OUTPUT = 500  # characters of a health check's output that the script sends


@dataclass(frozen=True)
class HealthCheck:
    """How Docker checks the health of a container; all times in seconds."""

    interval: float = 30.0
    timeout: float = 30.0
    retries: int = 3
    start_period: float = 0.0

    @classmethod
    def read(cls, value: object) -> "HealthCheck | None":
        """Read the object, whose times are in nanoseconds and where 0 means Docker's default.  Raises: ValueError."""
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
        """The longest time in seconds from the end of one check to the end of the next."""
        return self.interval + self.timeout

    @property
    def decides_within(self) -> float:
        """The longest time in seconds from the start of the container until Docker has decided on its health."""
        # A check that begins within the start period does not count, and may end a whole timeout after it.
        uncounted = self.start_period + self.period if self.start_period else 0.0
        return uncounted + self.retries * self.period + MARGIN


@dataclass(frozen=True)
class LastCheck:
    """The last health check of a container."""

    at: str  # when it began, in the Docker daemon's time zone; only for comparison with another check
    output: str = ""  # one line
    exit_code: int = 0  # -1 if Docker ended it

    @classmethod
    def read(cls, health: object) -> "LastCheck | None":
        """Return the last check in a container's health; None if there was none yet.  Raises: ValueError."""
        if health is None:
            return None
        entries = _mapping(health, "health")
        at = _text(entries, "checkedAt")
        output = _output(_text(entries, "output", most=_LONGEST_OUTPUT))
        code = _number(entries, "exitCode", least=-1)
        return cls(at, output, code) if at else None

    @property
    def words(self) -> str:
        """The result of the check, as a predicate of "its health check"."""
        words = f": {self.output}" if self.output else ", without output"
        return f"failed{words}" if self.exit_code < 0 else f"exited with code {self.exit_code}{words}"


@dataclass(frozen=True)
class Inspection:
    """The result of `docker inspect` for one container at one moment."""

    id: str
    container: Container  # the part that the API shows
    image_id: str = ""
    hash: str = ""  # Compose's config hash
    exit_code: int = 0  # of its last exit, also while it is restarting
    oom_killed: bool = False
    policy: str = "no"  # Docker's restart policy: no, always, unless-stopped, on-failure
    health_check: HealthCheck | None = None
    last_check: LastCheck | None = None

    @classmethod
    def read(cls, value: object) -> "Inspection":
        """Read the JSON object that the script sends for a container.  Raises: ValueError for anything else."""
        entries = _mapping(value, "container")
        identity = _text(entries, "id")
        if not identity:
            raise ValueError("id is empty")
        exit_code = _number(entries, "exitCode", least=-(2**31))
        return cls(
            id=identity,
            container=_container(entries, exit_code),
            image_id=_text(entries, "imageId"),
            hash=_text(entries, "hash"),
            exit_code=exit_code,
            oom_killed=_boolean(entries, "oomKilled"),
            policy=_text(entries, "policy").lower() or "no",
            health_check=HealthCheck.read(entries.get("healthcheck")),
            last_check=LastCheck.read(entries.get("health")),
        )

    @property
    def end(self) -> str:
        """How the container exited, as a predicate of "Service 'web'"."""
        if self.oom_killed:
            return f"was killed because it ran out of memory (exit code {self.exit_code})"
        if self.exit_code == _KILLED:
            return f"was killed with SIGKILL (exit code {self.exit_code})"
        because = _CAUSES.get(self.exit_code)
        return f"exited with code {self.exit_code}" + (f" ({because})" if because else "")

    @property
    def check_words(self) -> str:
        """The result of its last health check, see `LastCheck.words`; empty if there was none."""
        return self.last_check.words if self.last_check is not None else ""


def _container(entries: Mapping[str, Any], exit_code: int) -> Container:
    """Return the container as the API shows it.  Raises: ValueError."""
    health, ports = entries.get("health"), entries.get("ports")
    state = _text(entries, "state").lower()
    return Container.read(
        {
            "name": _text(entries, "name").removeprefix("/"),
            "service": _text(entries, "service"),
            "image": _text(entries, "image"),
            "state": state,
            "health": None if health is None else _text(_mapping(health, "health"), "status").lower(),
            "exitCode": exit_code if state in ENDED else None,
            "restarts": _number(entries, "restarts"),
            "startedAt": entries.get("startedAt"),
            "ports": [port for port in ports if port != ""] if isinstance(ports, list) else ports,
        }
    )


def _output(text: str) -> str:
    """Return the output of a health check on one line, with a mark if the script has cut it."""
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
