"""Plays one playbook through ansible-runner, as a process of its own: `python -P -m runner.playbook`.

The one module that imports ansible_runner.  It is a process because a run needs what threads cannot give: a clean
environment, an end that leaves nothing behind, and a death of the server that it notices.

stdin    one line of JSON: directory (of the run), project (where playbooks are), playbook, held (descriptors);
         a second line, or the end of stdin, stops the play and all that it has started
stdout   one JSON object a line, see `runner.events`
stderr   what neither expects; the server logs it
"""

import json
import os
import sys
import threading
from pathlib import Path
from typing import Any, TextIO

from ansible_runner.config.runner import RunnerConfig
from ansible_runner.runner import Runner

from runner import leftovers

GRACE = 1.0  # seconds between SIGTERM and SIGKILL: Ansible uses them to pass the signal on to its workers
WORDS = {"verbose", "warning", "error", "deprecated", "system_warning"}  # what Ansible says outside of tasks


class Play:
    """One playbook being played, and the thread that stops it."""

    def __init__(self, spec: dict[str, Any], out: TextIO) -> None:
        self._directory = Path(spec["directory"])
        self._spec = spec
        self._out = out
        self._stopping = threading.Event()

    def run(self) -> None:
        """Play to the end and say how it ended."""
        config = self._config()
        runner = Runner(config, event_handler=self._handle, cancel_callback=self._stopping.is_set)
        runner.run()
        self._say(kind="end", rc=runner.rc)

    def watch(self) -> None:
        """Wait for the word to stop, then end what the play has started.  Without a parent, end this process too."""
        word = sys.stdin.readline()
        self._stopping.set()
        leftovers.end(os.environ[leftovers.COOKIE], GRACE)
        if not word:
            os._exit(1)

    def _config(self) -> RunnerConfig:
        config = RunnerConfig(
            private_data_dir=str(self._directory),
            project_dir=self._spec["project"],
            playbook=self._spec["playbook"],
            inventory=str(self._directory / "inventory.json"),
            ident="play",
            fact_cache_type="memory",
            quiet=True,
            suppress_output_file=True,
            settings={"pexpect_timeout": 0.2},  # how soon ansible-runner looks whether it is to stop
        )
        config.prepare()
        # By module and not by name: a server that was started with a bare PATH finds no `ansible-playbook`.
        config.command[:1] = [sys.executable, "-P", "-m", "ansible", "playbook"]
        return config

    def _handle(self, event: dict[str, Any]) -> bool:
        message = _reduce(event)
        if message is not None:
            self._say(**message)
        return False  # leave no file of the event

    def _say(self, **message: Any) -> None:
        # A broken pipe means that the server is gone; the end of stdin tells that too, and is acted upon.
        try:
            self._out.write(json.dumps(message) + "\n")
            self._out.flush()
        except BrokenPipeError:
            self._stopping.set()


def _reduce(event: dict[str, Any]) -> dict[str, Any] | None:
    """What the server needs to know of one of ansible-runner's events; None where that is nothing."""
    kind, data = event["event"], event.get("event_data", {})
    if kind == "playbook_on_task_start":
        return {"kind": "task", "task": data["task"]}
    if kind in {"runner_on_ok", "runner_on_failed", "runner_on_unreachable"}:
        result = data["res"]
        outcome = kind.removeprefix("runner_on_")
        words = str(result.get("msg", ""))
        return {"kind": outcome, "task": data["task"], "message": words, "result": result.get("daos") or {}}
    if kind in WORDS and (words := event.get("stdout", "").strip()):
        return {"kind": "words", "message": words}
    return None


def main() -> None:
    """Play what the first line of stdin asks for."""
    spec = json.loads(sys.stdin.readline())
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever else prints must not get between the messages
    for descriptor in spec["held"]:
        os.set_inheritable(descriptor, False)
    play = Play(spec, out)
    threading.Thread(target=play.watch, name="watch", daemon=True).start()
    play.run()
    leftovers.end(os.environ[leftovers.COOKIE], GRACE)  # ssh's master outlives the play


if __name__ == "__main__":
    main()
