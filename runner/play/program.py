"""Plays one playbook through ansible-runner, as a separate process: `python -P -m runner.play.program`.

Only this module and `runner.play.forkserver` import ansible_runner.  It is a process because a thread cannot have its
own environment, cannot be ended without leaving anything behind, and does not outlive the server to clean up after it.

stdin    lines of JSON, see `runner.play.control`.  The first is a `Spec`; a second, `{"stop": true}`, ends all that the
         play has started.  So do the end of stdin and a deadline that passes; these end the play without an `end` event
stdout   one JSON object a line, see `runner.play.event`
stderr   unexpected output; the server logs it
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
    """What to play."""

    directory: str  # of the run; contains the inventory
    project: str  # the directory of the playbooks
    playbook: str
    held: list[int]  # descriptors that are kept open until all that the play has started has ended
    deadline: NotRequired[float | None]  # the first one, see `runner.play.control`


class Emitter:
    """Emits messages to the server.  `stopping` is set when the play must end."""

    def __init__(self, out: TextIO) -> None:
        self.stopping = threading.Event()
        self._out = out
        self._is_muted = False

    def emit(self, **message: Any) -> None:
        """Send one message, unless muted."""
        if self._is_muted:
            return
        # A broken pipe means that the server is gone; so does the end of stdin, which ends the play.
        try:
            self._out.write(json.dumps(message) + "\n")
            self._out.flush()
        except BrokenPipeError:
            self.stopping.set()

    def mute(self) -> None:
        """Emit nothing from now on; a message that another thread is emitting may still be sent."""
        self._is_muted = True

    def handle(self, event: dict[str, Any]) -> bool:
        """Pass on one of ansible-runner's events."""
        for message in reported(event):
            self.emit(**message)
        return False  # ansible-runner writes no file of the event


def configuration(spec: Spec) -> RunnerConfig:
    """Return ansible-runner's configuration, prepared: with the command and the complete environment of Ansible."""
    config = RunnerConfig(
        private_data_dir=spec["directory"],
        project_dir=spec["project"],
        playbook=spec["playbook"],
        inventory=str(Path(spec["directory"]) / "inventory.json"),
        ident="play",
        fact_cache_type="memory",
        quiet=True,
        suppress_output_file=True,
        settings={"pexpect_timeout": 0.2},  # seconds between ansible-runner's checks for a stop
    )
    config.prepare()
    return config


def obey(orders: Orders, emitter: Emitter) -> None:
    """From now on, stop the play when an order arrives.  Without a server or after the deadline, end this process too.

    This needs a thread: the main one may be blocked for any time, because a frozen server does not read its output.
    """
    threading.Thread(target=_obey, args=(orders, emitter), name="obey", daemon=True).start()


def _obey(orders: Orders, emitter: Emitter) -> None:
    while orders.next() is not None:
        _stop(emitter)
    # Events from now on result from stopping the play, and would be mistaken for the run's own end.
    emitter.mute()
    _stop(emitter)
    # The main thread ends the process if it can: only it knows the process that it is just starting.
    threading.main_thread().join(GRACE)
    processes.end_children(GRACE)
    os._exit(1)


def _stop(emitter: Emitter) -> None:
    emitter.stopping.set()
    processes.end(os.environ[processes.COOKIE], GRACE)


def main() -> None:
    """Play what the first line of stdin specifies."""
    orders = Orders(0)
    spec = cast("Spec | None", orders.first())
    if spec is None:
        return
    posix.adopt_orphans()
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # no other output must get between the messages
    for descriptor in spec["held"]:
        os.set_inheritable(descriptor, False)
    emitter = Emitter(out)
    config = configuration(spec)
    # By module, not by name: a server that was started with a bare PATH does not find `ansible-playbook`.
    config.command[:1] = [sys.executable, "-P", "-m", "ansible", "playbook"]
    runner = Runner(config, event_handler=emitter.handle, cancel_callback=emitter.stopping.is_set)
    if orders.is_over():
        return
    obey(orders, emitter)
    runner.run()
    emitter.emit(**Event(Kind.END, rc=runner.rc).write())
    processes.end_children(GRACE)  # ssh's control master outlives the play


if __name__ == "__main__":
    main()
