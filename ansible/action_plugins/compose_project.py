"""Plays phases of a compose project: one command on the host, without python there.

The work is done by files/compose_project.sh, which describes what it says.  Here is how it gets to the host, how
its words become results, and how they are told while the command still runs.  When a host cannot be reached, Ansible's
AnsibleConnectionFailure passes through.
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

TOLD = "daos "  # begins what Ansible displays for the server: behind it is a JSON array of messages
CHUNK = 64 * 1024  # bytes
MOST_LINES = 4000  # of one phase
LONGEST_LINE = 2000
LOST = 255  # ssh's own status when its connection fails

# Escape sequences as a whole, then every control character but the tab, and the two separators that some viewers obey.
UNPRINTABLE = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]"
)


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
        # Never empty: without input the ssh plugin asks for a terminal, which would mix the streams.
        stdin = Path(variables["daos_delivery"]).read_bytes() if "prepare" in phases else b"\n"
        listener = Listener(phases, tell=lambda messages: Display().display(TOLD + json.dumps(messages)))
        self._listen(listener)
        answer = self._low_level_execute_command(command(phases, variables), in_data=stdin)
        return listener.result(answer["rc"], answer["stderr"])

    def _listen(self, listener: Listener) -> None:
        """Have the connection pass on what comes: Ansible's own read it all, and tell it at the end (2.19)."""
        connection = self._connection
        if connection.transport == "ssh":

            def run(argv: list[bytes], in_data: bytes | None, **_: Any) -> tuple[int, bytes, bytes]:
                rc, stderr = stream(argv, in_data or b"", listener.hear)
                if (rc == LOST or rc < 0) and not listener.complete:  # below 0: a signal has ended ssh
                    raise lost(stderr.decode(errors="replace"), str(connection.host))
                return 0 if listener.complete else rc, b"", stderr

            connection._bare_run = run
        else:

            def execute(text: str, in_data: bytes | None = None, **_: Any) -> tuple[int, bytes, bytes]:
                rc, stderr = stream(["/bin/sh", "-c", text], in_data or b"", listener.hear, cwd=connection.cwd)
                return rc, b"", stderr

            connection.exec_command = execute


def lost(words: str, host: str) -> AnsibleConnectionFailure:
    """What Ansible's ssh plugin makes of ssh's own failure: on the first kind it tries once more."""
    if "mux_client_hello_exchange: write packet: Broken pipe" in words:
        return AnsibleControlPersistBrokenPipeError(words)
    return AnsibleConnectionFailure(f'Host "{host}" could not be reached over ssh: {words}')


def stream(
    argv: list[Any], stdin: bytes, hear: Callable[[bytes], None], cwd: bytes | str | None = None
) -> tuple[int, bytes]:
    """Run a program and pass its stdout on as it comes; gives its exit status and its stderr."""
    process = subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=cwd, bufsize=0
    )
    unsent, stderr = memoryview(stdin), b""
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
                        process.stdin.close()
                    continue
                chunk = key.fileobj.read(CHUNK)
                if not chunk:
                    selector.unregister(key.fileobj)
                elif key.fileobj is process.stdout:
                    hear(chunk)
                else:
                    stderr += chunk
        status = process.wait()
        return status, stderr + (process.stderr.read() or b"")


def send(pipe: Any, data: memoryview) -> int:
    """Write what there is room for; all that nobody reads any more counts as written."""
    try:
        return pipe.write(data[:CHUNK]) or 0
    except BrokenPipeError:
        return len(data)


def command(phases: list[str], variables: dict[str, Any]) -> str:
    """The script and its arguments as one line of shell, which any login shell passes on unharmed."""
    timeouts = variables["daos_timeouts"]
    arguments = [
        ",".join(phases),
        variables["daos_run"],
        variables["daos_deployment"],
        variables["daos_project"],
        ",".join(str(math.ceil(timeouts[phase])) for phase in phases),
        math.ceil(variables["daos_settle"] * 100),
        variables.get("daos_logins", 0) if "prepare" in phases else 0,
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
    """Understands what the script says, and tells it in messages as it comes:

    {"phase"}           the phase begins
    {"phase", "lines"}  the words of docker, compose and containers, in their order
    {"phase", "end"}    the phase has ended, by an object with `changed`, `failed`, `reason`, a FailureReason's name or
                        None, `detail`, one line or None, and `services`, {name, image, state, health, exitCode} for
                        each container, by name

    The end of `halt` and `settle` also has `marker`, which run was there last and how far it got, or None; `busy`, its
    work is not over; `matching`, the containers are what the files describe; `verdict`, "ok", "failed", or None when
    the host cannot know.  `reason` and `detail` are then the verdict's.
    """

    def __init__(self, phases: list[str], tell: Callable[[list[dict[str, Any]]], None]) -> None:
        self._expected = phases
        self._tell = tell
        self._rest = b""
        self._strange: list[str] = []  # the login shell's words, which are not believed
        self._messages: list[dict[str, Any]] = []
        self._begin("")
        self.ends: list[dict[str, Any]] = []

    @property
    def complete(self) -> bool:
        """Whether all was said."""
        return len(self.ends) == len(self._expected) or any(end["failed"] for end in self.ends)

    def hear(self, chunk: bytes) -> None:
        """Take the next bytes of the script's stdout in."""
        # Not splitlines(): it would split at characters that the host's words may hold, and believe what follows.
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            self._understand(line.decode(errors="replace"))
        self._pass_on()

    def _understand(self, line: str) -> None:
        kind, _, rest = line.partition(" ")
        if kind == "|":
            self._say(printable(rest))
        elif kind == "=":
            key, _, value = rest.partition(" ")
            self._note(key, value)
        elif kind != ".":
            self._strange = [*self._strange, line][-10:]

    def _note(self, key: str, value: str) -> None:
        if key == "phase":
            self._begin(value)
            self._messages.append({"phase": value})
        elif key == "service":
            self._services.append(json.loads(value))
        elif key == "marker":
            name, _, text = value.partition("=")
            self._marker[name] = printable(text)
        else:
            self._facts[key] = printable(value)
        if key == "result":
            self._end()

    def _begin(self, phase: str) -> None:
        self._phase = phase
        self._facts: dict[str, str] = {}
        self._services: list[dict[str, Any]] = []
        self._marker: dict[str, str] = {}
        self._lines: list[str] = []
        self._count = 0
        self._last: deque[str] = deque(maxlen=MOST_LINES // 2)

    def _say(self, line: str) -> None:
        """Tell the line, or keep it for the end of the phase where there are too many for a log."""
        self._count += 1
        (self._lines if self._count <= MOST_LINES // 2 else self._last).append(line)

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
        end: dict[str, Any] = {
            "changed": self._facts.get("changed") == "true",
            "failed": self._facts["result"] != "ok",
            "reason": self._facts.get("reason"),
            "detail": self._facts.get("detail"),
            "services": sorted(self._services, key=lambda service: str(service["name"])),
        }
        if self._phase in {"halt", "settle"}:
            end["marker"] = self._marker or None
            end["busy"] = self._facts.get("busy") == "true"
            end["matching"] = self._facts.get("matching") == "true"
            end["verdict"] = self._facts.get("verdict")
        self.ends.append(end)
        self._messages.append({"phase": self._phase, "end": end})
        self._phase = ""

    def result(self, rc: int, stderr: str) -> dict[str, Any]:
        """What Ansible is told in the end; a script that died is a phase that failed."""
        if not self.complete:
            if not self._phase:
                self._note("phase", self._expected[len(self.ends)])
            self._facts |= {"reason": "TASK_FAILED", "detail": self._account_of_death(rc, stderr)}
            self._note("result", "failed")
            self._pass_on()
        failed = any(end["failed"] for end in self.ends)
        last = self._expected[len(self.ends) - 1].capitalize()
        sentence = self.ends[-1]["detail"] or f"{last} {'failed' if failed else 'is done'}."
        changed = any(end["changed"] for end in self.ends)
        return {"changed": changed, "failed": failed, "msg": sentence, "daos": self.ends}

    def _account_of_death(self, rc: int, stderr: str) -> str:
        """One sentence on a script that was not started, or ended before it could tell a result."""
        strange = [*self._strange, self._rest.decode(errors="replace"), *stderr.split("\n")]
        words = [text for line in strange if (text := printable(line).strip())]
        return f"The command on the host ended with status {rc}: {words[-1] if words else 'it said nothing'}"[
            :LONGEST_LINE
        ]


def printable(text: str) -> str:
    """The text without what a terminal would obey."""
    return UNPRINTABLE.sub("", text)
