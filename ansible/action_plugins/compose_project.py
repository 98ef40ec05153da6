"""Plays one phase of a compose project: one command on the host, without python there.

The work is done by the role's compose_project.sh, which describes what it says.  Here is how it gets to the host, and
how its words become a result.  When a host cannot be reached, Ansible's AnsibleConnectionFailure passes through.
"""

from __future__ import annotations

import json
import math
import re
import shlex
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

MOST_LINES = 4000
LONGEST_LINE = 2000

# Escape sequences as a whole, then every control character but the tab, and the two separators that some viewers obey.
UNPRINTABLE = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]"
)


class ActionModule(ActionBase):
    """Result: `changed`, `failed`, `msg` (one sentence) and `daos`:

    `phase`; `reason`, a FailureReason's name or None; `detail`, one line or None; `lines`, the words of docker, compose
    and containers in their order; `services`, {name, image, state, health, exitCode} for each container, by name.

    After `halt` and `settle` also `marker`, which run was there last and how far it got, or None; `busy`, its work is
    not over; `matching`, the containers are what the files describe; `verdict`, "ok", "failed", or None when the host
    cannot know.  `reason` and `detail` are then the verdict's.
    """

    TRANSFERS_FILES = False
    _supports_async = False
    _supports_check_mode = False
    _VALID_ARGS = frozenset({"phase"})

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        variables = task_vars or {}
        phase = self._task.args["phase"]
        script = Path(self._find_needle("files", "compose_project.sh")).read_text(encoding="utf-8")
        # Never empty: without input the ssh plugin asks for a terminal, which would mix the streams.
        stdin = Path(variables["daos_archive"]).read_bytes() if phase == "prepare" else b"\n"
        answer = self._low_level_execute_command(
            command(script, phase, variables), in_data=stdin, encoding_errors="replace"
        )
        return result(phase, answer["rc"], answer["stdout"], answer["stderr"])


def command(script: str, phase: str, variables: dict[str, Any]) -> str:
    """The script and its arguments as one line of shell, which any login shell passes on unharmed."""
    arguments = [
        phase,
        variables["daos_run"],
        variables["daos_deployment"],
        variables["daos_project"],
        math.ceil(variables["daos_timeouts"][phase]),
        math.ceil(variables["daos_settle"] * 100),
        *variables["daos_rivals"],
    ]
    return f'set -- {shlex.join(map(str, arguments))}; eval "$(printf %b "{escaped(script)}")"'


def escaped(script: str) -> str:
    """The script for `printf %b`, without the characters that fish and csh read in their own way inside quotes."""
    return re.sub(r"[^ -~]|[\\'\"$`!]", lambda match: "".join(f"\\0{byte:03o}" for byte in match[0].encode()), script)


def result(phase: str, rc: int, stdout: str, stderr: str) -> dict[str, Any]:
    """What Ansible is told. Lines without one of the script's prefixes are the login shell's and not believed."""
    lines: list[str] = []
    facts: dict[str, str] = {}
    services: list[dict[str, Any]] = []
    marker: dict[str, str] = {}
    # Not splitlines(): it would split at characters that the host's words may hold, and believe what follows.
    for line in stdout.split("\n"):
        kind, _, rest = line.partition(" ")
        if kind == "|":
            lines.append(printable(rest))
        elif kind == "=":
            key, _, value = rest.partition(" ")
            if key == "service":
                services.append(json.loads(value))
            elif key == "marker":
                name, _, text = value.partition("=")
                marker[name] = printable(text)
            else:
                facts[key] = printable(value)
    if "result" not in facts:
        facts = {"result": "failed", "reason": "TASK_FAILED", "detail": account_of_death(rc, stdout, stderr)}
    failed = facts["result"] != "ok"
    told = {
        "phase": phase,
        "reason": facts.get("reason"),
        "detail": facts.get("detail"),
        "lines": shortened(lines),
        "services": sorted(services, key=lambda service: service["name"]),
    }
    if phase in {"halt", "settle"}:
        told["marker"] = marker or None
        told["busy"] = facts.get("busy") == "true"
        told["matching"] = facts.get("matching") == "true"
        told["verdict"] = facts.get("verdict")
    sentence = told["detail"] or f"{phase.capitalize()} {'failed' if failed else 'is done'}."
    return {"changed": facts.get("changed") == "true", "failed": failed, "msg": sentence, "daos": told}


def account_of_death(rc: int, stdout: str, stderr: str) -> str:
    """One sentence on a script that was not started, or ended before it could tell a result."""
    strange = (line for line in stdout.split("\n") if not line.startswith((". ", "| ", "= ")))
    words = [text for line in (*strange, *stderr.split("\n")) if (text := printable(line).strip())]
    return f"The command on the host ended with status {rc}: {words[-1] if words else 'it said nothing'}"[:LONGEST_LINE]


def printable(text: str) -> str:
    """The text without what a terminal would obey."""
    return UNPRINTABLE.sub("", text)


def shortened(lines: list[str]) -> list[str]:
    """The lines, or their beginning and their end when there are too many for one event."""
    half = MOST_LINES // 2
    left_out = len(lines) - 2 * half
    return lines if left_out <= 0 else [*lines[:half], f"({left_out} lines left out)", *lines[-half:]]
