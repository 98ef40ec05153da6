"""Plays one playbook through ansible-runner, as a process of its own: `python -P -m runner.playbook`.

This and `runner.warm` are all that imports ansible_runner.  It is a process because a run needs what threads cannot
give: a clean environment, an end that leaves nothing behind, and a death of the server that it notices.

stdin    one line of JSON, a `Spec`; a second line, or the end of stdin, stops the play and all that it has started
stdout   one JSON object a line, see `runner.events`
stderr   what neither expects; the server logs it
"""

import json
import os
import sys
import threading
from pathlib import Path
from typing import Any, TextIO, TypedDict

from ansible_runner.config.runner import RunnerConfig
from ansible_runner.runner import Runner

from runner import fork, leftovers

GRACE = 1.0  # seconds between SIGTERM and SIGKILL: Ansible uses them to pass the signal on to its workers
WORDS = {"verbose", "warning", "error", "deprecated", "system_warning"}  # what Ansible says outside of tasks


class Spec(TypedDict):
    """What is to be played."""

    directory: str  # of the run, with its inventory
    project: str  # where playbooks and roles are
    playbook: str
    held: list[int]  # descriptors that are kept open until all that the play has started has ended


class Teller:
    """Tells the server what happens."""

    def __init__(self, out: TextIO, stopping: threading.Event) -> None:
        self._out = out
        self._stopping = stopping

    def say(self, **message: Any) -> None:
        # A broken pipe means that the server is gone; the end of stdin tells that too, and is acted upon.
        try:
            self._out.write(json.dumps(message) + "\n")
            self._out.flush()
        except BrokenPipeError:
            self._stopping.set()

    def handle(self, event: dict[str, Any]) -> bool:
        """Pass one of ansible-runner's events on."""
        message = _reduce(event)
        if message is not None:
            self.say(**message)
        return False  # leave no file of the event


def configuration(spec: Spec) -> RunnerConfig:
    """What ansible-runner has to know, prepared: with the command and the whole environment of Ansible."""
    config = RunnerConfig(
        private_data_dir=spec["directory"],
        project_dir=spec["project"],
        playbook=spec["playbook"],
        inventory=str(Path(spec["directory"]) / "inventory.json"),
        ident="play",
        fact_cache_type="memory",
        quiet=True,
        suppress_output_file=True,
        settings={"pexpect_timeout": 0.2},  # how soon ansible-runner looks whether it is to stop
    )
    config.prepare()
    return config


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


def _watch(stopping: threading.Event) -> None:
    """Wait for the word to stop, then end what the play has started.  Without a parent, end this process too."""
    word = sys.stdin.readline()
    stopping.set()
    leftovers.end(os.environ[leftovers.COOKIE], GRACE)
    if not word:
        leftovers.end_children(GRACE)
        os._exit(1)


def main() -> None:
    """Play what the first line of stdin asks for."""
    spec: Spec = json.loads(sys.stdin.readline())
    fork.adopt_orphans()
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever else prints must not get between the messages
    for descriptor in spec["held"]:
        os.set_inheritable(descriptor, False)
    stopping = threading.Event()
    teller = Teller(out, stopping)
    threading.Thread(target=_watch, args=(stopping,), name="watch", daemon=True).start()
    config = configuration(spec)
    # By module and not by name: a server that was started with a bare PATH finds no `ansible-playbook`.
    config.command[:1] = [sys.executable, "-P", "-m", "ansible", "playbook"]
    runner = Runner(config, event_handler=teller.handle, cancel_callback=stopping.is_set)
    runner.run()
    teller.say(kind="end", rc=runner.rc)
    leftovers.end_children(GRACE)  # ssh's master outlives the play


if __name__ == "__main__":
    main()
