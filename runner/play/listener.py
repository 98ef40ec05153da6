"""Parses the output of the script on a host, answers its questions, and emits events while the output arrives.

ansible/files/compose_project/protocol.sh describes the output and the questions; `runner.host.answers` has the answers.
The script's text becomes `Phase`, `Marker`, and other types here.  A host is not trusted: the size of what it sends is
limited.  Ansible's process imports this module, so it uses the standard library only.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from db.phase import Phase, PhaseOutcome
from runner.host.answers import Answers, HostAnswer
from runner.host.stream import MAX_UNSENT
from runner.host.text import MAX_LINE, clipped, printable
from runner.play.event import Event, Kind, Marker, MarkerState, PhaseResult

MAX_LINES = 4000  # per phase
LINES_AT_ONCE = 100  # per event
EVENTS_AT_ONCE = 4  # emitted together
MAX_REPORT = 32 * 1024 * 1024  # bytes of a line; the longest one is the model of a large package
MAX_OUTPUT = 8 * 1024  # bytes of a line that is not a report
MAX_KEY = 100  # bytes at the beginning of a report that must contain its key
MAX_BYTES = 64 * 1024 * 1024  # per play
GRACE = 60.0  # seconds that a phase may exceed its limit, which the host itself enforces
QUIET = {Phase.BUILD, Phase.PULL}  # announced only if they have something to do
RECOVERY = {Phase.HALT, Phase.RECOVER}
RESULTS = {"effect", "result", "reason", "detail", "busy", "verdict"}  # the keys of a phase's result
MARKERS = {"run", "phase", "state"}  # the keys of a run's marker on the host
VALUES = {
    "result": {"ok", "failed"},
    "verdict": {"ok", "failed"},
    "busy": {"true", "false"},
    "effect": {"none", "changed"},
}


class Listener:
    """The state of one command on a host, from the first byte of its output to the last."""

    def __init__(
        self,
        phases: Sequence[Phase],
        answers: Answers,
        emit: Callable[[Sequence[Event]], None],
        limits: Mapping[Phase, float] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Expect these phases.

        `limits` are the seconds of each phase; the host enforces them, and `GRACE` seconds later the server does.
        """
        self._expected = phases
        self._answers = answers
        self._emit = emit
        self._limits = limits or {}
        self._clock = clock
        self._received = 0  # bytes
        self._rest = bytearray()
        self._is_aborted = False
        self._unexpected: deque[str] = deque(maxlen=10)  # output of a login shell, which is not parsed
        self._events: list[Event] = []
        self._fraction: float | None = None
        self.ends: list[Event] = []  # of phases, OK or FAILED
        self._begin(None)

    @property
    def is_complete(self) -> bool:
        """Whether all results have arrived."""
        return len(self.ends) == len(self._expected) or self.has_failed

    @property
    def is_aborted(self) -> bool:
        """Whether the server has ended the play."""
        return self._is_aborted

    @property
    def has_failed(self) -> bool:
        return any(end.kind is Kind.FAILED for end in self.ends)

    def receive(self, chunk: bytes) -> bytes:
        """Process the next bytes of the script's stdout, and return what to send to it."""
        if self.is_complete:
            return b""
        reply = b""
        self._received += len(chunk)
        self._rest += chunk.replace(b"\0", b"")  # a heartbeat can occur anywhere
        if b"\n" in chunk:
            # Not splitlines(): it also splits at characters that output may contain, and the rest would be parsed.
            *lines, self._rest = self._rest.split(b"\n")
            reply = self._parse_all(lines)
        if not self._rest.startswith(b"= "):
            del self._rest[MAX_OUTPUT + 1 :]
        self._check_size()
        self._flush()
        return reply

    def check_time(self) -> None:
        """End the play if the host lets a phase exceed its limit, does not begin one, or does not end the command."""
        waited = self._clock() - self._began
        if self.is_complete:
            self._is_aborted = self._is_aborted or waited > GRACE
            return
        phase = self._phase or self._expected[len(self.ends)]
        limit = self._limits.get(phase)
        if limit is not None and waited > limit + GRACE:
            self.abort(f"{phase.label} did not finish within {limit:.0f} s, and the host did not end it.", "TIMEOUT")

    def abort(self, detail: str, reason: str = "TASK_FAILED") -> None:
        """End the play from the server's side: the current phase fails."""
        self._is_aborted = True
        self._fail(clipped(detail), reason)
        self._flush()

    def conclude(self, rc: int, stderr: str) -> dict[str, Any]:
        """Return the result of Ansible's task, see its documentation; a script that died is a phase that failed."""
        if not self.is_complete:
            self._fail(self._describe_exit(rc, stderr))
            self._flush()
        last = self.ends[-1]
        results = [end.result for end in self.ends if end.result is not None]
        phase = last.phase.label if last.phase is not None else ""
        return {
            "changed": any(result.changed for result in results),
            "failed": self.has_failed,
            "msg": last.message or f"{phase} {'failed' if self.has_failed else 'is done'}.",
            "reason": results[-1].reason,
            "containers": [container.write() for container in results[-1].containers],
        }

    def _check_size(self) -> None:
        if not self.is_complete and (len(self._rest) > MAX_REPORT or self._received > MAX_BYTES):
            self.abort("The host sent more data than daos accepts; the play was ended.")

    def _parse_all(self, lines: Iterable[bytearray]) -> bytes:
        """Parse lines, and return the answers to the questions among them."""
        reply = bytearray()
        for line in lines:
            try:
                reply += self._parse(line)
            except HostAnswer as error:
                self.abort(f"The host sent something that daos does not understand: {error}")
            if self.is_complete or len(reply) > MAX_UNSENT:
                break
        return bytes(reply)

    def _parse(self, line: bytearray) -> bytes:
        kind, _, rest = line.partition(b" ")
        if kind == b"|":
            self._answers.receive_output(self._text(rest))
            self._take_lines()
            return b""
        key, _, value = rest[:MAX_KEY].decode(errors="replace").partition(" ")
        if kind != b"=" or (self._phase is None and key != "phase"):  # output of a login shell, which precedes ours
            self._unexpected.append(clipped(self._text(line)))
        elif key == "ask":
            reply = self._answers.answer(value)
            self._take_lines()
            return reply
        else:
            self._set_fact(key, rest.partition(b" ")[2].decode(errors="replace"))
        return b""

    def _text(self, line: bytearray) -> str:
        """Return a line as printable text, shortened to what the log can show."""
        text = printable(line[:MAX_OUTPUT].decode(errors="replace"))
        # The script cuts longer lines by bytes or by characters, depending on the shell.
        return text + "…" if len(line) >= MAX_LINE else text

    def _set_fact(self, key: str, value: str) -> None:
        if key == "phase":
            wanted = self._expected[len(self.ends)]
            if self._phase is not None or value != wanted.word:
                raise HostAnswer(f"phase {value[:MAX_KEY]!r} began where {wanted.word!r} is expected")
            self._begin(wanted)
            if wanted not in QUIET or self._answers.has_work(wanted):
                self._announce()
        elif key == "marker":
            name, _, text = value.partition("=")
            if name not in MARKERS:
                raise HostAnswer(f"the marker has {name[:MAX_KEY]!r}")
            self._marker[name] = clipped(printable(text))
        elif key in RESULTS:
            if key in VALUES and value not in VALUES[key]:
                raise HostAnswer(f"{key} is {value[:MAX_KEY]!r}")
            self._facts[key] = clipped(printable(value), is_cut=len(value.encode()) >= MAX_LINE)
        else:
            self._answers.set_fact(key, value)
        if key == "result":
            self._end()

    def _begin(self, phase: Phase | None) -> None:
        self._phase = phase
        self._began = self._clock()
        self._is_announced = False
        self._facts: dict[str, str] = {}
        self._marker: dict[str, str] = {}
        self._lines: list[str] = []
        self._count = 0
        self._last: deque[str] = deque(maxlen=MAX_LINES // 2)
        self._known_warnings = len(self._answers.warnings)
        self._answers.begin(phase)

    def _take_lines(self) -> None:
        lines = self._answers.take_lines()
        if lines:
            self._announce()
        for line in lines:
            if line.is_warning:
                self._add_lines()
                self._events.append(Event(Kind.LINES, self._phase, lines=[clipped(line.text)], is_warning=True))
            else:
                self._keep(clipped(line.text))
        if self._answers.fraction != self._fraction and self._answers.fraction is not None:
            self._fraction = self._answers.fraction
            self._events.append(Event(Kind.PROGRESS, self._phase, fraction=self._fraction))

    def _keep(self, line: str) -> None:
        """Keep the line for the next event, or for the end of the phase if there are too many lines for the log."""
        self._count += 1
        (self._lines if self._count <= MAX_LINES // 2 else self._last).append(line)

    def _announce(self) -> None:
        """Emit that the phase begins, once."""
        if self._phase is not None and not self._is_announced:
            self._is_announced = True
            self._events.append(Event(Kind.PHASE, self._phase))

    def _flush(self) -> None:
        self._add_lines()
        events, self._events = self._events, []
        for first in range(0, len(events), EVENTS_AT_ONCE):
            self._emit(events[first : first + EVENTS_AT_ONCE])

    def _add_lines(self) -> None:
        for first in range(0, len(self._lines), LINES_AT_ONCE):
            lines = self._lines[first : first + LINES_AT_ONCE]
            self._events.append(Event(Kind.LINES, self._phase, lines=lines))
        self._lines = []

    def _end(self) -> None:
        left_out = self._count - MAX_LINES // 2 - len(self._last)
        self._lines += [*([f"({left_out} lines left out)"] if left_out > 0 else []), *self._last]
        self._add_lines()
        has_failed = self._facts["result"] != "ok"
        if has_failed:
            self._announce()
        result = self._result()
        kind = Kind.FAILED if has_failed else Kind.OK
        end = Event(kind, self._phase, message=result.detail or "", result=result)
        self.ends.append(end)
        self._events.append(end)
        self._phase = None
        self._began = self._clock()

    def _result(self) -> PhaseResult:
        facts = self._facts
        has_changed = facts.get("effect") == "changed"
        result = PhaseResult(
            changed=has_changed or (self._phase is Phase.UP and self._answers.has_changed),
            reason=facts.get("reason"),
            detail=facts.get("detail"),
            containers=self._answers.containers,
            warnings=self._answers.warnings[self._known_warnings :],
        )
        if self._phase not in RECOVERY:
            return result
        verdict = facts.get("verdict")
        return replace(
            result,
            is_busy=facts.get("busy") == "true",
            marker=_marker(self._marker) if self._marker else None,
            verdict=None if verdict is None else PhaseOutcome(verdict.upper()),
        )

    def _fail(self, detail: str, reason: str = "TASK_FAILED") -> None:
        """End the phase if the script has not."""
        if self._phase is None:
            self._set_fact("phase", self._expected[len(self.ends)].word)
        self._facts |= {"reason": reason, "detail": detail}
        self._set_fact("result", "failed")

    def _describe_exit(self, rc: int, stderr: str) -> str:
        """Return one sentence about a script that was not started, or ended before it could print a result."""
        output = [*self._unexpected, self._rest[:MAX_LINE].decode(errors="replace"), *stderr.split("\n")]
        lines = [text for line in output if (text := printable(line).strip())]
        return clipped(f"The command on the host ended with status {rc}: {lines[-1] if lines else 'it had no output'}")


def _marker(noted: Mapping[str, str]) -> Marker:
    """Return the marker from its facts; the run may have been one of another release of daos."""
    phases = {phase.word: phase for phase in Phase}
    states = {state.value: state for state in MarkerState}
    return Marker(noted.get("run", ""), phases.get(noted.get("phase", "")), states.get(noted.get("state", "")))
