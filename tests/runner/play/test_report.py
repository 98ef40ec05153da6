"""What becomes of ansible-runner's events: ours as they are, and of other tasks what they print."""

from typing import Any

import pytest

from db.phase import Phase
from runner.play.event import Event, Kind, PhaseResult, displayed
from runner.play.report import LINES_AT_ONCE, MAX_LINES, reported


def read(kind: str, action: str = "command", stdout: str = "", **data: Any) -> list[Event]:
    """The events that are reported of one of a task "Announce"."""
    event_data = {"task": "Announce", "task_action": action, **data}
    return [Event.read(each) for each in reported({"event": kind, "stdout": stdout, "event_data": event_data})]


def lines(*those: str, is_warning: bool = False) -> Event:
    return Event(Kind.LINES, task="Announce", lines=[f"Announce: {line}" for line in those], is_warning=is_warning)


def test_events_of_our_task_are_passed_on_unchanged() -> None:
    events = [Event(Kind.PHASE, Phase.UP), Event(Kind.OK, Phase.UP, result=PhaseResult(changed=True))]
    assert read("verbose", stdout=f"{displayed(events)}\n") == events


def test_its_own_end_is_not_reported_twice() -> None:
    assert read("playbook_on_task_start", "compose_project") == []
    assert read("runner_on_ok", "compose_project", res={"containers": [], "msg": "Verify is done."}) == []
    assert read("runner_on_failed", "compose_project", res={"msg": "missing required arguments: run"}) == [
        Event(Kind.FAILED, task="Announce", message="missing required arguments: run")
    ]


def test_another_task_begins_prints_and_ends() -> None:
    assert read("playbook_on_task_start") == [Event(Kind.TASK, task="Announce")]
    assert read("runner_on_ok", res={"stdout": "one\n\x1b[1mtwo\n", "stderr": "three", "msg": ""}) == [
        lines("one", "two", "three"),
        Event(Kind.OK, task="Announce"),
    ]
    assert read("runner_on_ok", "debug", res={"msg": ["a"]}) == [
        lines("['a']"),
        Event(Kind.OK, task="Announce", message="['a']"),
    ]


def test_a_task_that_fails_has_printed_warnings() -> None:
    assert read("runner_on_failed", res={"stdout": "", "stderr": "no\nway", "msg": "non-zero return code"}) == [
        lines("no", "way", is_warning=True),
        Event(Kind.FAILED, task="Announce", message="non-zero return code"),
    ]


def test_a_failure_that_is_ignored_is_none() -> None:
    failed = {"stderr": "no", "msg": "non-zero return code"}
    assert read("runner_on_failed", res=failed, ignore_errors=True) == [
        lines("no", "non-zero return code", is_warning=True)
    ]


@pytest.mark.parametrize(("kind", "is_warning"), [("runner_item_on_ok", False), ("runner_item_on_failed", True)])
def test_each_round_of_a_loop_prints(kind: str, is_warning: bool) -> None:
    assert read(kind, res={"stdout": "one"}) == [lines("one", is_warning=is_warning)]


def test_what_a_task_may_not_show_is_not_shown() -> None:
    assert read("runner_on_ok", res={"censored": "the output has been hidden due to no_log"}) == [
        Event(Kind.OK, task="Announce")
    ]


def test_of_a_flood_the_end_is_reported_in_parts() -> None:
    *printed, end = read("runner_on_ok", res={"stdout": "\n".join(map(str, range(5000)))})
    assert end.kind is Kind.OK
    found = [line for event in printed for line in event.lines]
    assert (found[0], found[1], found[-1]) == ("Announce: (4000 lines left out)", "Announce: 4000", "Announce: 4999")
    assert len(found) == MAX_LINES + 1
    assert max(len(event.lines) for event in printed) == LINES_AT_ONCE


def test_what_ansible_says_outside_of_tasks_is_reported() -> None:
    assert read("warning", stdout="[WARNING]: beware\n") == [Event(Kind.MESSAGE, message="[WARNING]: beware")]
    assert read("playbook_on_stats", stdout="PLAY RECAP") == []
