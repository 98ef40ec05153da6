"""Runs an action on a Compose project: one command on the host, without Python there.

The documentation is in library/compose_project.py.  The script in files/compose_project/ does the work; its protocol.sh
describes its output and its questions.  This plugin sends the script to the host; `runner.play.listener` parses and
answers what comes back.  If a host cannot be reached, Ansible's AnsibleConnectionFailure propagates.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure
from ansible.plugins.action import ActionBase
from ansible.plugins.connection.ssh import AnsibleControlPersistBrokenPipeError
from ansible.utils.display import Display

from runner.host import script
from runner.host.answers import Answers
from runner.host.arguments import SPEC, Arguments
from runner.host.delivery import Delivery
from runner.host.stream import stream
from runner.play.event import Event, displayed, readable
from runner.play.listener import Listener

LOST = 255  # ssh's exit status when its connection fails

# Escaped once, when the warm process loads this module.
PARTS = {
    name: script.escaped(text)
    for name, text in script.read(Path(__file__).parents[1] / "files/compose_project").items()
}


class ActionModule(ActionBase):
    """The action plugin; it displays its events while it runs, see `runner.play.event`."""

    TRANSFERS_FILES = False
    _supports_async = False
    _supports_check_mode = True  # otherwise Ansible would skip the task, and the play would appear to succeed

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        if self._task.check_mode:
            raise AnsibleActionFail("compose_project does not support check mode; nothing was changed.")
        arguments = self._arguments()
        delivery = None if arguments.delivery is None else _read(arguments.delivery)
        host = (task_vars or {}).get("inventory_hostname", "")
        listener = Listener(
            arguments.phases,
            Answers(arguments.project, delivery, arguments.limits),
            emit=lambda events: _display(events, host, arguments),
            limits=arguments.phase_limits,
        )
        self._receive_by(listener)
        # Never empty: without input, the ssh plugin requests a terminal, which would mix the streams.
        stdin = b"\n" + (delivery.stdin if delivery is not None else b"")
        answer = self._low_level_execute_command(script.command(PARTS, arguments, delivery), in_data=stdin)
        return listener.conclude(answer["rc"], answer["stderr"])

    def _arguments(self) -> Arguments:
        _, validated = self.validate_argument_spec(SPEC)
        try:
            return Arguments.read(validated)
        except ValueError as error:
            raise AnsibleActionFail(str(error)) from error

    def _receive_by(self, listener: Listener) -> None:
        """Have the connection pass on output as it arrives: Ansible's own plugins return it only at the end (2.19)."""
        connection = self._connection
        if connection.transport == "ssh":

            def run(argv: list[bytes], in_data: bytes | None, **_: Any) -> tuple[int, bytes, bytes]:
                rc, stderr = stream(argv, in_data or b"", listener)
                if (rc == LOST or rc < 0) and not listener.is_complete:  # negative if a signal has ended ssh
                    raise _lost(stderr.decode(errors="replace"), str(connection.host))
                return 0 if listener.is_complete else rc, b"", stderr

            connection._bare_run = run
        else:

            def execute(text: str, in_data: bytes | None = None, **_: Any) -> tuple[int, bytes, bytes]:
                rc, stderr = stream(["/bin/sh", "-c", text], in_data or b"", listener, cwd=connection.cwd)
                return rc, b"", stderr

            connection.exec_command = execute


def _read(path: Path) -> Delivery:
    try:
        return Delivery.read(path.read_bytes())
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise AnsibleActionFail(f"The delivery {path} cannot be read: {error}") from error


def _display(events: Sequence[Event], host: str, arguments: Arguments) -> None:
    if arguments.has_events:
        Display().display(displayed(events))
        return
    for line in readable(events):
        Display().display(f"{host}: {line}")


def _lost(stderr: str, host: str) -> AnsibleConnectionFailure:
    """Return the exception of Ansible's ssh plugin for a failure of ssh; after the first kind, Ansible retries once."""
    if "mux_client_hello_exchange: write packet: Broken pipe" in stderr:
        return AnsibleControlPersistBrokenPipeError(stderr)
    return AnsibleConnectionFailure(f'Host "{host}" could not be reached over ssh: {stderr}')
