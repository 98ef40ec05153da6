"""Plays one playbook through ansible-runner, as a process of its own: `python -P -m runner.play.program`.

This and `runner.play.forkserver` are all that imports ansible_runner.  It is a process because a run needs what threads
cannot give: a clean environment, an end that leaves nothing behind, and a death of the server that it notices.

stdin    lines of JSON, see `runner.play.control`.  The first is a `Spec`; a second, `{"stop": true}`, ends all that the
         play has started.  So do the end of stdin and a deadline that passes, and these end the play without an `end`
stdout   one JSON object a line, see `runner.play.event`
stderr   what neither expects; the server logs it
"""

import json
import os
import sys
import threading
from pathlib import Path
from typing import Any, NotRequired, TextIO, TypedDict, cast

from ansible_runner.config.runner import RunnerConfig
from ansible_runner.runner import Runner

from runner import processes
from runner.play import posix
from runner.play.control import Orders
from runner.play.event import Event, Kind
from runner.play.report import reported

GRACE = 1.0  # seconds between SIGTERM and SIGKILL: Ansible uses them to pass the signal on to its workers


class Spec(TypedDict):
    """What is to be played."""

    directory: str  # of the run, with its inventory
    project: str  # where playbooks and roles are
    playbook: str
    held: list[int]  # descriptors that are kept open until all that the play has started has ended
    deadline: NotRequired[float | None]  # the first one, see `runner.play.control`


class Teller:
    """Tells the server what happens.  `stopping` is set when the play is to end."""

    def __init__(self, out: TextIO) -> None:
        self.stopping = threading.Event()
        self._out = out
        self._is_silent = False

    def say(self, **message: Any) -> None:
        if self._is_silent:
            return
        # A broken pipe means that the server is gone; the end of stdin tells that too, and is acted upon.
        try:
            self._out.write(json.dumps(message) + "\n")
            self._out.flush()
        except BrokenPipeError:
            self.stopping.set()

    def be_silent(self) -> None:
        """Tell nothing any more; a message that is being told may still be."""
        self._is_silent = True

    def handle(self, event: dict[str, Any]) -> bool:
        """Pass one of ansible-runner's events on."""
        for message in reported(event):
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


def obey(orders: Orders, teller: Teller) -> None:
    """From now on, stop the play at a word.  Without a server or beyond the deadline, end this process too.

    That takes a thread: the main one can wait for as long as it likes for a frozen server to read what it is told.
    """
    threading.Thread(target=_obey, args=(orders, teller), name="obey", daemon=True).start()


def _obey(orders: Orders, teller: Teller) -> None:
    while orders.next() is not None:
        _stop(teller)
    # What comes now tells of the cutting, and would be taken for the run's own end.
    teller.be_silent()
    _stop(teller)
    # The main thread ends the process where it can: it alone knows of what it is just starting.
    threading.main_thread().join(GRACE)
    processes.end_children(GRACE)
    os._exit(1)


def _stop(teller: Teller) -> None:
    teller.stopping.set()
    processes.end(os.environ[processes.COOKIE], GRACE)


def main() -> None:
    """Play what the first line of stdin asks for."""
    orders = Orders(0)
    spec = cast("Spec | None", orders.first())
    if spec is None:
        return
    posix.adopt_orphans()
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever else prints must not get between the messages
    for descriptor in spec["held"]:
        os.set_inheritable(descriptor, False)
    teller = Teller(out)
    config = configuration(spec)
    # By module and not by name: a server that was started with a bare PATH finds no `ansible-playbook`.
    config.command[:1] = [sys.executable, "-P", "-m", "ansible", "playbook"]
    runner = Runner(config, event_handler=teller.handle, cancel_callback=teller.stopping.is_set)
    if orders.is_over():
        return
    obey(orders, teller)
    runner.run()
    teller.say(**Event(Kind.END, rc=runner.rc).write())
    processes.end_children(GRACE)  # ssh's master outlives the play


if __name__ == "__main__":
    main()
