"""What tests of plays share: a run's directory, playbooks, the two ways to play."""

import asyncio
import json
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from db.phase import Phase
from runner.play.event import Event, Kind, PhaseResult
from runner.play.play import environment
from runner.play.request import PlayRequest
from runner.play.warm import WarmAnsible

DEADLINE = 20.0  # seconds

SLOW = """
- name: Wait
  hosts: all
  gather_facts: false
  tasks:
    - name: Sleep
      ansible.builtin.raw: "echo $$ > {pids}; sleep 300"
"""


def make_directory(path: Path, **variables: Any) -> Path:
    """A run's directory with one local host."""
    host = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable, **variables}
    (path / "tmp").mkdir(parents=True)
    (path / "inventory.json").write_text(json.dumps({"all": {"hosts": {"here": host}}}))
    return path


def write_playbook(directory: Path, text: str) -> str:
    path = directory / "play.yml"
    path.write_text(textwrap.dedent(text))
    return str(path)


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + DEADLINE
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE):
        while not condition():  # noqa: ASYNC110 - it is about other processes
            await asyncio.sleep(0.01)


def request_of(
    directory: Path,
    playbook: str,
    cookie: str,
    *,
    kept_open: tuple[int, ...] = (),
    deadline: float | None = None,
    passed_on: Mapping[str, str] | None = None,
) -> PlayRequest:
    """A request for a play, with the environment that a run's has."""
    variables = environment(directory, cookie, passed_on or {})
    return PlayRequest(directory, playbook, cookie, variables, kept_open, deadline)


@asynccontextmanager
async def warmed(root: Path, name: str) -> AsyncIterator[WarmAnsible]:
    """Warm Ansible, ready."""
    warm = WarmAnsible(root, name, {})
    serving = asyncio.create_task(warm.serve())
    try:
        async with asyncio.timeout(60):
            assert await warm.decided()
        yield warm
    finally:
        serving.cancel()
        await asyncio.wait({serving})


REPORTING = """
import json

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display


class ActionModule(ActionBase):
    _VALID_ARGS = frozenset({"events"})

    def run(self, tmp=None, task_vars=None):
        super().run(tmp, task_vars)
        text = json.dumps(self._task.args["events"]).replace("RUN", task_vars["daos"]["id"])
        Display().display("daos " + text)
        failed = any(event["kind"] == "failed" for event in json.loads(text))
        return {"failed": failed, "msg": "reported", "containers": []}
"""


def write_reporting(folder: Path, name: str, *events: Event) -> None:
    """A playbook whose action plugin displays these events in place of what a host says; RUN is the run's id."""
    (folder / "action_plugins").mkdir(exist_ok=True)
    (folder / "action_plugins" / "compose_project.py").write_text(REPORTING)
    task = {"name": "Report", "compose_project": {"events": [event.write() for event in events]}}
    (folder / name).write_text(json.dumps([{"hosts": "all", "gather_facts": False, "tasks": [task]}]))


def phase(of: Phase, *lines: str, **result: Any) -> list[Event]:
    """What is reported of a phase, with its `lines` and its end; `reason` makes it fail."""
    kind = Kind.FAILED if "reason" in result else Kind.OK
    end = Event(kind, of, message=result.get("detail", ""), result=PhaseResult(**{"changed": True, **result}))
    printed = [Event(Kind.LINES, of, lines=list(lines))] if lines else []
    return [Event(Kind.PHASE, of), *printed, end]
