"""Events are the same on both sides of a process boundary, and Ansible's own process needs little for them."""

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from db.containers import ContainerHealth
from db.phase import Phase, PhaseOutcome
from runner.play.event import MARK, Event, Kind, Marker, MarkerState, PhaseResult, displayed
from tests import factories

ROOT = Path(__file__).parents[3]
WEB = factories.container(
    health=ContainerHealth.HEALTHY, started_at=datetime(2026, 1, 1, tzinfo=UTC), ports=("80/tcp",)
)


@pytest.mark.parametrize(
    "event",
    [
        Event(Kind.PHASE, Phase.UP),
        Event(Kind.LINES, Phase.UP, lines=["", "a\n"], is_warning=True),
        Event(Kind.PROGRESS, Phase.PULL, fraction=0.0),
        Event(Kind.OK, Phase.UP, result=PhaseResult()),
        Event(Kind.OK, Phase.UP, result=PhaseResult(changed=True, containers=[WEB], warnings=["careful"])),
        Event(Kind.FAILED, Phase.UP, message="No.", result=PhaseResult(reason="TIMEOUT", detail="No.")),
        Event(
            Kind.OK,
            Phase.RECOVER,
            result=PhaseResult(
                is_busy=True, marker=Marker("1", Phase.UP, MarkerState.RUNNING), verdict=PhaseOutcome.FAILED
            ),
        ),
        Event(Kind.OK, Phase.HALT, result=PhaseResult(marker=Marker("1"))),
        Event(Kind.FAILED, task="Announce", message="No."),
        Event(Kind.END, rc=0),
    ],
)
def test_what_was_written_is_read(event: Event) -> None:
    assert Event.read(json.loads(json.dumps(event.write()))) == event
    assert [Event.read(each) for each in json.loads(displayed([event, event]).removeprefix(MARK))] == [event, event]


def test_what_is_as_usual_is_not_written() -> None:
    assert Event(Kind.END, rc=0).write() == {"kind": "end", "rc": 0}
    assert Event(Kind.OK, Phase.UP, result=PhaseResult()).write() == {"kind": "ok", "phase": "UP", "result": {}}


@pytest.mark.parametrize(
    "written",
    [
        {"kind": "rumor"},
        {"kind": "phase", "phase": "up"},
        {"kind": "ok", "result": {"verdict": "maybe"}},
        {"kind": "ok", "result": {"containers": [{}]}},
        {"kind": "ok", "result": {"marker": {"run": "1", "state": "resting"}}},
    ],
)
def test_what_is_no_event_is_refused(written: dict[str, object]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - it says what it is no value of
        Event.read(written)


def test_the_action_plugin_imports_ansible_and_the_standard_library() -> None:
    """It is imported in each cold play, and its process may have no package of the server's."""
    code = f"""
import sys
import ansible.plugins.action, ansible.plugins.connection.ssh, ansible.utils.display
before = set(sys.modules)
sys.path.insert(0, {str(ROOT / "ansible/action_plugins")!r})
import compose_project
print(*(set(sys.modules) - before))
"""
    imported = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    packages = {name.split(".")[0] for name in imported.stdout.split()} - sys.stdlib_module_names
    assert packages <= {"compose_project", "db", "runner", "ansible"}
