"""What is found when containers are judged, and the sentences about it.  Pure, of the standard library only.

A failure is put into words in a second step, for which the last log lines of the containers are fetched first.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from runner.host.text import one_line


class Kind(StrEnum):
    """What a verdict says."""

    OK = "ok"
    WAIT = "wait"
    FAILED = "failed"


@dataclass(frozen=True)
class Finding:
    """Why one container is not well, or not well yet."""

    service: str
    words: str  # its state where it is awaited, else what happened, to be put behind the service
    id: str = ""  # of the container; empty where the service has none
    container: str = ""  # its name, where the service has several
    check: str = ""  # what the last health check said
    has_failed: bool = False
    crashed: bool = False  # its last log line may say why
    deadline: float = 0.0  # when waiting for it ends
    remaining: float | None = None  # seconds after which it is well, where it only has to stay up

    @property
    def awaited(self) -> str:
        """The container with its state: "db (starting)"."""
        return f"{self.container or self.service} ({self.words})"

    def sentence(self, last_line: str = "") -> str:
        """One sentence with what the container printed last."""
        container = f" (container {self.container})" if self.container else ""
        check = f": its health check {self.check}" if self.check else ""
        last = one_line(last_line) if self.crashed else ""
        return f"Service '{self.service}'{container} {self.words}{check}{f': {last}' if last else ''}."


@dataclass(frozen=True)
class Verdict:
    """Whether the containers are well, or when to inspect them next."""

    kind: Kind
    findings: tuple[Finding, ...] = ()  # what has failed, or what is awaited
    waited: float = 0.0  # seconds since the watch began
    late: bool = False  # it failed because the time was up, and nothing was decided
    next_in: float = 0.0  # seconds until the next inspection, of WAIT
    log: str | None = None  # a line for the log, where what is awaited has changed

    @property
    def awaited(self) -> str:
        """What is waited for: "db (starting), web (restarting)"."""
        return ", ".join(dict.fromkeys(finding.awaited for finding in self.findings))

    @property
    def troubled(self) -> dict[str, str]:
        """The containers whose logs are of interest, by id: the service, or the container where it has several."""
        return {finding.id: finding.container or finding.service for finding in self.findings if finding.id}

    def message(self, last_lines: Mapping[str, str] | None = None) -> str:
        """Why it failed, each sentence once.  `last_lines` has the last log line of containers, by id."""
        if self.late:
            checks = (f" The health check of '{item.service}' {item.check}." for item in self.findings if item.check)
            return f"Not up within {self.waited:.0f} s: {self.awaited}.{''.join(dict.fromkeys(checks))}"
        lines = last_lines or {}
        return " ".join(dict.fromkeys(finding.sentence(lines.get(finding.id, "")) for finding in self.findings))

    def expire(self) -> "Verdict":
        """The verdict where no time is left to wait: what is awaited has failed."""
        return Verdict(Kind.FAILED, self.findings, self.waited, late=True) if self.kind is Kind.WAIT else self
