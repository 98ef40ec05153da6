"""Plays phases of a Compose project: one command on the host, without Python there.

The work is done by files/compose_project/, whose protocol.sh describes what it prints and asks.  Here is how it gets to
the host, how its output becomes results, how its questions are answered (runner/host/answers.py), and how all of it is
displayed while the command still runs.  When a host cannot be reached, Ansible's AnsibleConnectionFailure passes
through.
"""

from __future__ import annotations

import json
import math
import os
import selectors
import shlex
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase
from ansible.plugins.connection.ssh import AnsibleControlPersistBrokenPipeError
from ansible.utils.display import Display

from runner.host import script
from runner.host.answers import Answers, HostAnswer, Limits
from runner.host.delivery import Delivery
from runner.host.text import printable

TOLD = "daos "  # begins what Ansible displays for the server: behind it is a JSON array of messages
CHUNK = 64 * 1024  # bytes
MOST_LINES = 4000  # of one phase
LONGEST_LINE = 2000  # characters; the script's own limit
LINES_AT_ONCE = 100  # in one message
MESSAGES_AT_ONCE = 4  # displayed together
# A host is believed to be busy, not to be honest: what it sends is bounded, whatever it sends.
LONGEST_REPORT = 32 * 1024 * 1024  # bytes of a line; the longest one is the model of a large package
LONGEST_WORDS = 8 * 1024  # bytes of a line that is not a report
LONGEST_KEY = 100  # bytes in which the key of a report has to be
MOST_BYTES = 64 * 1024 * 1024  # of one play
MOST_STDERR = 64 * 1024  # bytes; the last ones say why
MOST_UNSENT = 16 * 1024 * 1024  # bytes of answers that the host does not read
TICK = 1.0  # seconds between two looks at the time
GRACE = 60.0  # seconds that a phase may take beyond its limit, which the host enforces itself
KILL_AFTER = 5.0  # seconds that a program has to end
QUIET = {"build", "pull"}  # phases that are announced when they have something to do
RESULTS = {"effect", "result", "reason", "detail", "busy", "verdict"}  # what the end of a phase is made of
MARKERS = {"run", "deployment", "action", "phase", "state", "reason", "detail"}  # what a run notes on the host
WORDS = {
    "result": {"ok", "failed"},
    "verdict": {"ok", "failed"},
    "busy": {"true", "false"},
    "effect": {"none", "changed"},
}
LOST = 255  # ssh's own status when its connection fails


class ActionModule(ActionBase):
    """Result: `changed`, `failed`, `msg` (one sentence) and `daos`, what each phase came to, see `Listener`.

    While it runs, it displays what happens: lines that begin with `TOLD`.
    """

    TRANSFERS_FILES = False
    _supports_async = False
    _supports_check_mode = False
    _VALID_ARGS = frozenset({"phases"})

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        variables = task_vars or {}
        phases = list(self._task.args["phases"])
        delivery = Delivery.read(Path(variables["daos_delivery"]).read_bytes()) if "prepare" in phases else None
        # Never empty: without input the ssh plugin asks for a terminal, which would mix the streams.
        stdin = b"\n" + (delivery.stdin if delivery is not None else b"")
        answers = Answers(variables["daos_project"], delivery, limits(variables))
        listener = Listener(
            phases,
            answers,
            tell=lambda messages: Display().display(TOLD + json.dumps(messages)),
            seconds=phase_limits(phases, variables),
        )
        self._listen(listener)
        answer = self._low_level_execute_command(command(phases, variables, delivery), in_data=stdin)
        return listener.result(answer["rc"], answer["stderr"])

    def _listen(self, listener: Listener) -> None:
        """Have the connection pass on what comes: Ansible's own read it all, and tell it at the end (2.19)."""
        connection = self._connection
        if connection.transport == "ssh":

            def run(argv: list[bytes], in_data: bytes | None, **_: Any) -> tuple[int, bytes, bytes]:
                rc, stderr = stream(argv, in_data or b"", listener)
                if (rc == LOST or rc < 0) and not listener.complete:  # below 0: a signal has ended ssh
                    raise lost(stderr.decode(errors="replace"), str(connection.host))
                return 0 if listener.complete else rc, b"", stderr

            connection._bare_run = run
        else:

            def execute(text: str, in_data: bytes | None = None, **_: Any) -> tuple[int, bytes, bytes]:
                rc, stderr = stream(["/bin/sh", "-c", text], in_data or b"", listener, cwd=connection.cwd)
                return rc, b"", stderr

            connection.exec_command = execute


def lost(words: str, host: str) -> AnsibleConnectionFailure:
    """What Ansible's ssh plugin makes of ssh's own failure: on the first kind it tries once more."""
    if "mux_client_hello_exchange: write packet: Broken pipe" in words:
        return AnsibleControlPersistBrokenPipeError(words)
    return AnsibleConnectionFailure(f'Host "{host}" could not be reached over ssh: {words}')


def stream(argv: list[Any], stdin: bytes, listener: Listener, cwd: bytes | str | None = None) -> tuple[int, bytes]:
    """Run a program, pass its stdout on as it comes, and send the answers; gives its exit status and its stderr."""
    process = subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=cwd, bufsize=0
    )
    stderr = b""
    with process.stdin, process.stdout, process.stderr, selectors.DefaultSelector() as selector:
        for pipe in (process.stdin, process.stdout, process.stderr):
            os.set_blocking(pipe.fileno(), False)
        selector.register(process.stdout, selectors.EVENT_READ)
        selector.register(process.stderr, selectors.EVENT_READ)
        channel = Channel(process.stdin, selector, stdin)
        # Not to the end of stderr as well: a master that ssh leaves behind may have it open.
        while process.stdout in {key.fileobj for key in selector.get_map().values()}:
            for key, _ in selector.select(TICK):
                if key.fileobj is process.stdin:
                    channel.send()
                elif not (chunk := key.fileobj.read(CHUNK)):
                    selector.unregister(key.fileobj)
                elif key.fileobj is process.stdout:
                    channel.add(listener.hear(chunk))
                else:
                    stderr = (stderr + chunk)[-MOST_STDERR:]
            listener.check_time()
            if listener.complete:
                channel.close()  # nothing more will be asked
            elif channel.unsent > MOST_UNSENT:
                listener.cut("The host asks, and does not read the answers: the play was ended.")
            if listener.is_cut:
                end(process)  # what else it has to say is not of interest
                break
        status = process.wait()
        return status, (stderr + (process.stderr.read(MOST_STDERR) or b""))[-MOST_STDERR:]


def end(process: subprocess.Popen[bytes]) -> None:
    """End a program that may not want to."""
    process.terminate()
    try:
        process.wait(KILL_AFTER)
    except subprocess.TimeoutExpired:
        process.kill()


class Channel:
    """The way to a program's stdin; it takes what there is room for, and is written to when there is."""

    def __init__(self, pipe: Any, selector: selectors.BaseSelector, data: bytes) -> None:
        self._pipe = pipe
        self._selector = selector
        self._unsent = b""
        self._is_registered = False
        self.add(data)

    @property
    def unsent(self) -> int:
        """How many bytes nobody has made room for yet."""
        return len(self._unsent)

    def add(self, data: bytes) -> None:
        """Send `data` as soon as there is room for it."""
        if self._pipe.closed or not data:
            return
        self._unsent += data
        if not self._is_registered:
            self._is_registered = True
            self._selector.register(self._pipe, selectors.EVENT_WRITE)

    def send(self) -> None:
        """Write what there is room for; all that nobody reads any more counts as written."""
        try:
            sent = self._pipe.write(self._unsent[:CHUNK]) or 0
        except BrokenPipeError:
            sent = len(self._unsent)
        self._unsent = self._unsent[sent:]
        if not self._unsent:
            self._unregister()

    def close(self) -> None:
        """End the program's stdin; nothing happens where it has ended."""
        if not self._pipe.closed:
            self._unregister()
            self._pipe.close()

    def _unregister(self) -> None:
        if self._is_registered:
            self._is_registered = False
            self._selector.unregister(self._pipe)


def limits(variables: dict[str, Any]) -> Limits:
    """How long containers may take to be well."""
    timeouts = variables["daos_timeouts"]
    return Limits(
        variables["daos_settle"],
        timeouts["verify"],
        timeouts.get("run", Limits.run),
        timeouts.get("recover", Limits.recovery),
    )


def phase_limits(phases: list[str], variables: dict[str, Any]) -> dict[str, float]:
    """Seconds after which a phase is ended from here.  Verify may take as long as health checks need."""
    timeouts = variables["daos_timeouts"]
    run = timeouts.get("run", Limits.run)
    return {phase: (run if phase == "verify" else timeouts[phase]) + GRACE for phase in phases}


def command(phases: list[str], variables: dict[str, Any], delivery: Delivery | None = None) -> str:
    """The script and its arguments as one line of shell, which any login shell passes on unharmed."""
    timeouts = variables["daos_timeouts"]
    delivered: tuple[object, ...] = (0, "-", 0, 0, "-", "no")
    if delivery is not None:
        sizes = len(delivery.logins), delivery.id, len(delivery.manifest), len(delivery.seeds)
        delivered = (*sizes, delivery.override or "-", "yes" if delivery.outside else "no")
    arguments = [
        ",".join(phases),
        variables["daos_run"],
        variables["daos_deployment"],
        variables["daos_installation"],
        variables["daos_project"],
        ",".join(str(math.ceil(timeouts[phase])) for phase in phases),
        *delivered,
        *variables["daos_rivals"],
    ]
    return f'set -- {shlex.join(map(str, arguments))}; eval "$(printf %b "{script.joined(PARTS, phases)}")"'


# Escaped once, when the warm process loads this module.
PARTS = {
    name: script.escaped(text)
    for name, text in script.read(Path(__file__).parents[1] / "files/compose_project").items()
}


def clipped(text: str, *, is_cut: bool = False) -> str:
    """The text in at most `LONGEST_LINE` characters, with a mark where it ends too early: `runner.mask` looks for it.

    `is_cut`: its end is missing already.
    """
    return text[: LONGEST_LINE - 1] + "…" if is_cut or len(text) > LONGEST_LINE else text


class Listener:
    """Understands what the script prints, answers what it asks, and passes it on in messages as it comes:

    {"phase"}              the phase begins
    {"phase", "lines"}     lines of Docker, Compose and containers, in their order
    {"phase", "warnings"}  lines that deserve attention
    {"phase", "fraction"}  how much of the phase is done, from 0 to 1
    {"phase", "end"}       the phase has ended, by an object with `changed`, `failed`, `reason`, a FailureReason's name
                           or None, `detail`, one line or None, `containers`, see `Answers.containers`, and `warnings`

    The end of `halt` and `recover` also has `marker`, which run was there last and how far it got, or None; `busy`, its
    work is not over; `verdict`, "ok", "failed", or None when the host cannot know.  `reason` and `detail` are then the
    verdict's.
    """

    def __init__(
        self,
        phases: list[str],
        answers: Answers,
        tell: Callable[[list[dict[str, Any]]], None],
        seconds: Mapping[str, float] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`seconds` is how long each phase may take before it is ended from here."""
        self._expected = phases
        self._answers = answers
        self._tell = tell
        self._seconds = seconds or {}
        self._clock = clock
        self._received = 0  # bytes
        self._rest = bytearray()
        self.is_cut = False  # the play was ended from here
        self._strange: deque[str] = deque(maxlen=10)  # the login shell's words, which are not believed
        self._messages: list[dict[str, Any]] = []
        self._fraction: float | None = None
        self._begin("")
        self.ends: list[dict[str, Any]] = []

    @property
    def complete(self) -> bool:
        """Whether everything was printed."""
        return len(self.ends) == len(self._expected) or any(end["failed"] for end in self.ends)

    def hear(self, chunk: bytes) -> bytes:
        """Take in the next bytes of the script's stdout; gives what to send to it."""
        if self.complete:
            return b""
        reply = bytearray()
        self._received += len(chunk)
        self._rest += chunk.replace(b"\0", b"")  # a heartbeat can come at any place
        if b"\n" in chunk:
            # Not splitlines(): it would split at characters that the host's words may hold, and believe what follows.
            *lines, self._rest = self._rest.split(b"\n")
            for line in lines:
                try:
                    reply += self._understand(line)
                except HostAnswer as error:
                    self.cut(f"The host sent something that daos does not understand: {error}")
                if self.complete or len(reply) > MOST_UNSENT:
                    break
        if not self._rest.startswith(b"= "):
            del self._rest[LONGEST_WORDS + 1 :]
        if not self.complete and (len(self._rest) > LONGEST_REPORT or self._received > MOST_BYTES):
            self.cut("The host sent more than daos takes: the play was ended.")
        self._pass_on()
        return bytes(reply)

    def check_time(self) -> None:
        """End the play where a host lets a phase go on beyond its limit, does not begin one, or does not end."""
        waited = self._clock() - self._began
        if self.complete:
            self.is_cut = self.is_cut or waited > GRACE
            return
        phase = self._phase or self._expected[len(self.ends)]
        limit = self._seconds.get(phase)
        if limit is not None and waited > limit:
            seconds = limit - GRACE
            self.cut(
                f"{phase.capitalize()} did not finish within {seconds:.0f} s, and the host did not end it.", "TIMEOUT"
            )

    def cut(self, detail: str, reason: str = "TASK_FAILED") -> None:
        """End the play from here."""
        self.is_cut = True
        self._fail(clipped(detail), reason)
        self._pass_on()

    def _understand(self, said: bytes) -> bytes:
        kind, _, rest = said.partition(b" ")
        if kind == b"|":
            self._answers.hear(self._words(rest))
            self._take_lines()
            return b""
        key, _, value = rest[:LONGEST_KEY].decode(errors="replace").partition(" ")
        if kind != b"=" or (not self._phase and key != "phase"):  # of a login shell, which comes first
            self._strange.append(clipped(self._words(said)))
        elif key == "ask":
            reply = self._answers.answer(value)
            self._take_lines()
            return reply
        else:
            self._note(key, rest.partition(b" ")[2].decode(errors="replace"))
        return b""

    def _words(self, said: bytes) -> str:
        """A line as text, without what nobody will see of it."""
        text = printable(said[:LONGEST_WORDS].decode(errors="replace"))
        # The script cuts what is longer by the byte or by the character, whatever the shell counts.
        return text + "…" if len(said) >= LONGEST_LINE else text

    def _note(self, key: str, value: str) -> None:
        if key == "phase":
            wanted = self._expected[len(self.ends)]
            if self._phase or value != wanted:
                raise HostAnswer(f"phase {value[:LONGEST_KEY]!r} began where {wanted!r} is expected")
            self._begin(value)
            if value not in QUIET or self._answers.has_work(value):
                self._announce()
        elif key == "marker":
            name, _, text = value.partition("=")
            if name not in MARKERS:
                raise HostAnswer(f"the marker has {name[:LONGEST_KEY]!r}")
            self._marker[name] = clipped(printable(text))
        elif key in RESULTS:
            if key in WORDS and value not in WORDS[key]:
                raise HostAnswer(f"{key} is {value[:LONGEST_KEY]!r}")
            self._facts[key] = clipped(printable(value), is_cut=len(value.encode()) >= LONGEST_LINE)
        else:
            self._answers.note(key, value)
        if key == "result":
            self._end()

    def _begin(self, phase: str) -> None:
        self._phase = phase
        self._began = self._clock()
        self._is_announced = False
        self._facts: dict[str, str] = {}
        self._marker: dict[str, str] = {}
        self._lines: list[str] = []
        self._count = 0
        self._last: deque[str] = deque(maxlen=MOST_LINES // 2)
        self._known_warnings = len(self._answers.warnings)
        self._answers.begin(phase)

    def _take_lines(self) -> None:
        lines = self._answers.take_lines()
        if lines:
            self._announce()
        for line in lines:
            if line.is_warning:
                self._say_lines()
                self._messages.append({"phase": self._phase, "warnings": [clipped(line.text)]})
            else:
                self._say(clipped(line.text))
        if self._answers.fraction != self._fraction and self._answers.fraction is not None:
            self._fraction = self._answers.fraction
            self._messages.append({"phase": self._phase, "fraction": self._fraction})

    def _say(self, line: str) -> None:
        """Pass the line on, or keep it for the end of the phase where there are too many for a log."""
        self._count += 1
        (self._lines if self._count <= MOST_LINES // 2 else self._last).append(line)

    def _announce(self) -> None:
        """Pass on that the phase begins, once."""
        if self._phase and not self._is_announced:
            self._is_announced = True
            self._messages.append({"phase": self._phase})

    def _pass_on(self) -> None:
        self._say_lines()
        messages, self._messages = self._messages, []
        for first in range(0, len(messages), MESSAGES_AT_ONCE):
            self._tell(messages[first : first + MESSAGES_AT_ONCE])

    def _say_lines(self) -> None:
        for first in range(0, len(self._lines), LINES_AT_ONCE):
            self._messages.append({"phase": self._phase, "lines": self._lines[first : first + LINES_AT_ONCE]})
        self._lines = []

    def _end(self) -> None:
        left_out = self._count - MOST_LINES // 2 - len(self._last)
        self._lines += [*([f"({left_out} lines left out)"] if left_out > 0 else []), *self._last]
        self._say_lines()
        if self._facts["result"] != "ok":
            self._announce()
        has_changed = self._facts.get("effect") == "changed"
        end: dict[str, Any] = {
            "changed": has_changed or (self._phase == "up" and self._answers.has_changed),
            "failed": self._facts["result"] != "ok",
            "reason": self._facts.get("reason"),
            "detail": self._facts.get("detail"),
            "containers": [container.write() for container in self._answers.containers],
            "warnings": self._answers.warnings[self._known_warnings :],
        }
        if self._phase in {"halt", "recover"}:
            end["marker"] = self._marker or None
            end["busy"] = self._facts.get("busy") == "true"
            end["verdict"] = self._facts.get("verdict")
        self.ends.append(end)
        self._messages.append({"phase": self._phase, "end": end})
        self._phase = ""
        self._began = self._clock()

    def result(self, rc: int, stderr: str) -> dict[str, Any]:
        """What Ansible is given in the end; a script that died is a phase that failed."""
        if not self.complete:
            self._fail(self._account_of_death(rc, stderr))
            self._pass_on()
        failed = any(end["failed"] for end in self.ends)
        last = self._expected[len(self.ends) - 1].capitalize()
        sentence = self.ends[-1]["detail"] or f"{last} {'failed' if failed else 'is done'}."
        changed = any(end["changed"] for end in self.ends)
        return {"changed": changed, "failed": failed, "msg": sentence, "daos": self.ends}

    def _fail(self, detail: str, reason: str = "TASK_FAILED") -> None:
        """End the phase where the script has not."""
        if not self._phase:
            self._note("phase", self._expected[len(self.ends)])
        self._facts |= {"reason": reason, "detail": detail}
        self._note("result", "failed")

    def _account_of_death(self, rc: int, stderr: str) -> str:
        """One sentence on a script that was not started, or ended before it could print a result."""
        strange = [*self._strange, self._rest[:LONGEST_LINE].decode(errors="replace"), *stderr.split("\n")]
        words = [text for line in strange if (text := printable(line).strip())]
        return clipped(f"The command on the host ended with status {rc}: {words[-1] if words else 'it said nothing'}")
