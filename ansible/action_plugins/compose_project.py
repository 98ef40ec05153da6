"""Plays phases of a Compose project: one command on the host, without Python there.

The work is done by files/compose_project/, whose protocol.sh describes what it prints and asks.  Here is how it gets to
the host; what comes back is understood, and answered, by `runner.play.listener`.  When a host cannot be reached,
Ansible's AnsibleConnectionFailure passes through.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase
from ansible.plugins.connection.ssh import AnsibleControlPersistBrokenPipeError
from ansible.utils.display import Display

from db.phase import Phase
from runner.host import script
from runner.host.answers import Answers, Limits
from runner.host.delivery import Delivery
from runner.host.stream import stream
from runner.play.event import displayed
from runner.play.listener import Listener

LOST = 255  # ssh's own status when its connection fails


class ActionModule(ActionBase):
    """While it runs, it displays its events: lines that begin with `runner.play.event.MARK`."""

    TRANSFERS_FILES = False
    _supports_async = False
    _supports_check_mode = False
    _VALID_ARGS = frozenset({"phases"})

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        variables = task_vars or {}
        phases = [Phase(word.upper()) for word in self._task.args["phases"]]
        delivery = Delivery.read(Path(variables["daos_delivery"]).read_bytes()) if Phase.PREPARE in phases else None
        # Never empty: without input the ssh plugin asks for a terminal, which would mix the streams.
        stdin = b"\n" + (delivery.stdin if delivery is not None else b"")
        answers = Answers(variables["daos_project"], delivery, limits(variables))
        listener = Listener(
            phases,
            answers,
            emit=lambda events: Display().display(displayed(events)),
            limits=phase_limits(phases, variables),
        )
        self._receive_by(listener)
        answer = self._low_level_execute_command(command(phases, variables, delivery), in_data=stdin)
        return listener.conclude(answer["rc"], answer["stderr"])

    def _receive_by(self, listener: Listener) -> None:
        """Have the connection pass on what comes: Ansible's own read it all, and report it at the end (2.19)."""
        connection = self._connection
        if connection.transport == "ssh":

            def run(argv: list[bytes], in_data: bytes | None, **_: Any) -> tuple[int, bytes, bytes]:
                rc, stderr = stream(argv, in_data or b"", listener)
                if (rc == LOST or rc < 0) and not listener.is_complete:  # below 0: a signal has ended ssh
                    raise lost(stderr.decode(errors="replace"), str(connection.host))
                return 0 if listener.is_complete else rc, b"", stderr

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


def limits(variables: dict[str, Any]) -> Limits:
    """How long containers may take to be well."""
    timeouts = variables["daos_timeouts"]
    return Limits(
        variables["daos_settle"],
        timeouts["verify"],
        timeouts.get("run", Limits.run),
        timeouts.get("recover", Limits.recovery),
    )


def phase_limits(phases: Sequence[Phase], variables: dict[str, Any]) -> dict[Phase, float]:
    """The seconds of each phase.  Verify may take as long as health checks need."""
    timeouts = variables["daos_timeouts"]
    run = timeouts.get("run", Limits.run)
    return {phase: run if phase is Phase.VERIFY else timeouts[phase.word] for phase in phases}


def command(phases: Sequence[Phase], variables: dict[str, Any], delivery: Delivery | None = None) -> str:
    """The script and its arguments as one line of shell, which any login shell passes on unharmed."""
    timeouts = variables["daos_timeouts"]
    delivered: tuple[object, ...] = (0, "-", 0, 0, "-", "no")
    if delivery is not None:
        sizes = len(delivery.logins), delivery.id, len(delivery.manifest), len(delivery.seeds)
        delivered = (*sizes, delivery.override or "-", "yes" if delivery.outside else "no")
    arguments = [
        ",".join(phase.word for phase in phases),
        variables["daos_run"],
        variables["daos_deployment"],
        variables["daos_installation"],
        variables["daos_project"],
        ",".join(str(math.ceil(timeouts[phase.word])) for phase in phases),
        *delivered,
        *variables["daos_rivals"],
    ]
    return f'set -- {shlex.join(map(str, arguments))}; eval "$(printf %b "{script.joined(PARTS, phases)}")"'


# Escaped once, when the warm process loads this module.
PARTS = {
    name: script.escaped(text)
    for name, text in script.read(Path(__file__).parents[1] / "files/compose_project").items()
}
