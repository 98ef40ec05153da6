"""The results of judging containers, and the sentences about them.  Pure, standard library only.

The sentence about a failure is made in a second step, for which the last log lines of the containers are fetched first.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from runner.host.text import one_line


class Kind(StrEnum):
    """The kinds of verdicts."""

    OK = "ok"
    WAIT = "wait"
    FAILED = "failed"


@dataclass(frozen=True)
class Finding:
    """Why one container is not well, or not well yet."""

    service: str
    words: str  # the state of a container that is awaited, otherwise what happened, as a predicate of the service
    id: str = ""  # of the container; empty if the service has none
    container: str = ""  # its name, if the service has several
    check: str = ""  # the result of the last health check
    has_failed: bool = False
    crashed: bool = False  # its last log line may contain the reason
    deadline: float = 0.0  # when waiting for it ends
    remaining: float | None = None  # seconds after which it is well, if it only has to stay up

    @property
    def awaited(self) -> str:
        """The container with its state: "db (starting)"."""
        return f"{self.container or self.service} ({self.words})"

    def sentence(self, last_line: str = "") -> str:
        """Return one sentence about the container; it includes `last_line`, the last line of its log, if it crashed."""
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
    late: bool = False  # it failed because the time was up, without a decision
    next_in: float = 0.0  # seconds until the next inspection, for WAIT
    log: str | None = None  # a line for the log, if what is awaited has changed

    @property
    def awaited(self) -> str:
        """The containers that are awaited: "db (starting), web (restarting)"."""
        return ", ".join(dict.fromkeys(finding.awaited for finding in self.findings))

    @property
    def troubled(self) -> dict[str, str]:
        """The containers whose logs are needed, by id: the service's name, or the container's if there are several."""
        return {finding.id: finding.container or finding.service for finding in self.findings if finding.id}

    def message(self, last_lines: Mapping[str, str] | None = None) -> str:
        """Return why it failed, each sentence once.  `last_lines` has the last log line of each container, by id."""
        if self.late:
            checks = (f" The health check of '{item.service}' {item.check}." for item in self.findings if item.check)
            return f"Not up within {self.waited:.0f} s: {self.awaited}.{''.join(dict.fromkeys(checks))}"
        lines = last_lines or {}
        return " ".join(dict.fromkeys(finding.sentence(lines.get(finding.id, "")) for finding in self.findings))

    def expire(self) -> "Verdict":
        """Return the verdict when no time is left: the containers that are awaited have failed."""
        return Verdict(Kind.FAILED, self.findings, self.waited, late=True) if self.kind is Kind.WAIT else self
