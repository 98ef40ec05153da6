"""Plays phases of a Compose project: one command on the host, without Python there.

The work is done by files/compose_project.sh, which describes what it prints and asks.  Here is how it gets to the host,
how its output becomes results, how its questions are answered (runner/answers.py), and how all of it is displayed while
the command still runs.  When a host cannot be reached, Ansible's AnsibleConnectionFailure passes through.
"""

from __future__ import annotations

import json
import math
import os
import re
import selectors
import shlex
import subprocess
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase
from ansible.plugins.connection.ssh import AnsibleControlPersistBrokenPipeError
from ansible.utils.display import Display

from runner.answers import Answers, HostAnswer, Limits
from runner.delivery import Delivery
from runner.text import printable

TOLD = "daos "  # begins what Ansible displays for the server: behind it is a JSON array of messages
CHUNK = 64 * 1024  # bytes
MOST_LINES = 4000  # of one phase
LONGEST_LINE = 2000
QUIET = {"build", "pull"}  # phases that are announced when they have something to do
RESULTS = {"effect", "result", "reason", "detail", "busy", "verdict"}  # what the end of a phase is made of
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
        listener = Listener(phases, answers, tell=lambda messages: Display().display(TOLD + json.dumps(messages)))
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
    unsent, stderr = stdin, b""
    with process.stdin, process.stdout, process.stderr, selectors.DefaultSelector() as selector:
        for pipe in (process.stdin, process.stdout, process.stderr):
            os.set_blocking(pipe.fileno(), False)
        selector.register(process.stdin, selectors.EVENT_WRITE)
        selector.register(process.stdout, selectors.EVENT_READ)
        selector.register(process.stderr, selectors.EVENT_READ)
        # Not to the end of stderr as well: a master that ssh leaves behind may have it open.
        while process.stdout in {key.fileobj for key in selector.get_map().values()}:
            for key, _ in selector.select():
                if key.fileobj is process.stdin:
                    unsent = unsent[send(process.stdin, unsent) :]
                    if not unsent:
                        selector.unregister(process.stdin)
                    continue
                chunk = key.fileobj.read(CHUNK)
                if not chunk:
                    selector.unregister(key.fileobj)
                elif key.fileobj is process.stdout:
                    if answer := listener.hear(chunk):
                        unsent += answer
                        _register(selector, process.stdin)
                    if listener.complete and not process.stdin.closed:
                        _unregister(selector, process.stdin)
                        process.stdin.close()  # nothing more will be asked
                else:
                    stderr += chunk
        status = process.wait()
        return status, stderr + (process.stderr.read() or b"")


def _register(selector: selectors.BaseSelector, pipe: Any) -> None:
    if not pipe.closed and pipe not in {key.fileobj for key in selector.get_map().values()}:
        selector.register(pipe, selectors.EVENT_WRITE)


def _unregister(selector: selectors.BaseSelector, pipe: Any) -> None:
    if pipe in {key.fileobj for key in selector.get_map().values()}:
        selector.unregister(pipe)


def send(pipe: Any, data: bytes) -> int:
    """Write what there is room for; all that nobody reads any more counts as written."""
    try:
        return pipe.write(data[:CHUNK]) or 0
    except BrokenPipeError:
        return len(data)


def limits(variables: dict[str, Any]) -> Limits:
    """How long containers may take to be well."""
    timeouts = variables["daos_timeouts"]
    return Limits(
        variables["daos_settle"],
        timeouts["verify"],
        timeouts.get("run", Limits.run),
        timeouts.get("settle", Limits.recovery),
    )


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
    return f'set -- {shlex.join(map(str, arguments))}; eval "$(printf %b "{SCRIPT}")"'


def escaped(script: str) -> str:
    """The script for `printf %b`, without the characters that fish and csh read in their own way inside quotes.

    Its comments stay here: the host's shell would read them in each run.
    """
    code = re.sub(r"(?m)^[ \t]*#.*\n", "", script)
    return re.sub(r"[^ -~]|[\\'\"$`!]", lambda match: "".join(f"\\0{byte:03o}" for byte in match[0].encode()), code)


SCRIPT = escaped((Path(__file__).parents[1] / "files/compose_project.sh").read_text(encoding="utf-8"))


class Listener:
    """Understands what the script prints, answers what it asks, and passes it on in messages as it comes:

    {"phase"}              the phase begins
    {"phase", "lines"}     lines of Docker, Compose and containers, in their order
    {"phase", "warnings"}  lines that deserve attention
    {"phase", "fraction"}  how much of the phase is done, from 0 to 1
    {"phase", "end"}       the phase has ended, by an object with `changed`, `failed`, `reason`, a FailureReason's name
                           or None, `detail`, one line or None, `containers`, see `Answers.containers`, and `warnings`

    The end of `halt` and `settle` also has `marker`, which run was there last and how far it got, or None; `busy`, its
    work is not over; `verdict`, "ok", "failed", or None when the host cannot know.  `reason` and `detail` are then the
    verdict's.
    """

    def __init__(self, phases: list[str], answers: Answers, tell: Callable[[list[dict[str, Any]]], None]) -> None:
        self._expected = phases
        self._answers = answers
        self._tell = tell
        self._rest = b""
        self._strange: list[str] = []  # the login shell's words, which are not believed
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
        reply = b""
        # A heartbeat can come at any place.  Not splitlines(): it would split at characters that the host's words may
        # hold, and believe what follows.
        *lines, self._rest = (self._rest + chunk.replace(b"\0", b"")).split(b"\n")
        for line in lines:
            if self.complete:
                break
            try:
                reply += self._understand(line.decode(errors="replace"))
            except HostAnswer as error:
                self._fail(f"The host sent something that daos does not understand: {error}"[:LONGEST_LINE])
        self._pass_on()
        return reply

    def _understand(self, line: str) -> bytes:
        kind, _, rest = line.partition(" ")
        if kind == "|":
            self._answers.hear(printable(rest))
            self._take_lines()
        elif kind == "=":
            key, _, value = rest.partition(" ")
            if key == "ask":
                reply = self._answers.answer(value)
                self._take_lines()
                return reply
            self._note(key, value)
        else:
            self._strange = [*self._strange, line][-10:]
        return b""

    def _note(self, key: str, value: str) -> None:
        if key == "phase":
            self._begin(value)
            if value not in QUIET or self._answers.has_work(value):
                self._announce()
        elif key == "marker":
            name, _, text = value.partition("=")
            self._marker[name] = printable(text)
        elif key in RESULTS:
            self._facts[key] = printable(value)
        else:
            self._answers.note(key, value)
        if key == "result":
            self._end()

    def _begin(self, phase: str) -> None:
        self._phase = phase
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
                self._messages.append({"phase": self._phase, "warnings": [line.text[:LONGEST_LINE]]})
            else:
                self._say(line.text[:LONGEST_LINE])
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
        if self._messages:
            self._tell(self._messages)
            self._messages = []

    def _say_lines(self) -> None:
        if self._lines:
            self._messages.append({"phase": self._phase, "lines": self._lines})
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
            "containers": self._answers.containers,
            "warnings": self._answers.warnings[self._known_warnings :],
        }
        if self._phase in {"halt", "settle"}:
            end["marker"] = self._marker or None
            end["busy"] = self._facts.get("busy") == "true"
            end["verdict"] = self._facts.get("verdict")
        self.ends.append(end)
        self._messages.append({"phase": self._phase, "end": end})
        self._phase = ""

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

    def _fail(self, detail: str) -> None:
        """End the phase where the script has not."""
        if not self._phase:
            self._note("phase", self._expected[len(self.ends)])
        self._facts |= {"reason": "TASK_FAILED", "detail": detail}
        self._note("result", "failed")

    def _account_of_death(self, rc: int, stderr: str) -> str:
        """One sentence on a script that was not started, or ended before it could print a result."""
        strange = [*self._strange, self._rest.decode(errors="replace"), *stderr.split("\n")]
        words = [text for line in strange if (text := printable(line).strip())]
        return f"The command on the host ended with status {rc}: {words[-1] if words else 'it said nothing'}"[
            :LONGEST_LINE
        ]
