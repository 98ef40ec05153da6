"""Converts ansible-runner's events to the events that the server reads.  Pure.

The events that our own task displays are passed on unchanged.  For an operator's tasks, the log contains the name of
the task and what it prints.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from runner.host.text import clipped, printable
from runner.play.event import MARK, TASK, Event, Kind

MESSAGES = {"verbose", "warning", "error", "deprecated", "system_warning"}  # what Ansible prints outside of tasks
ENDS = {"runner_on_ok": Kind.OK, "runner_on_failed": Kind.FAILED, "runner_on_unreachable": Kind.UNREACHABLE}
ITEMS = {"runner_item_on_ok", "runner_item_on_failed"}  # of a loop; the event that ends the loop follows
MAX_LINES = 1000  # per result; the last lines are kept, because they explain a failure
LINES_AT_ONCE = 100  # per event


def reported(event: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield what the server needs from one of ansible-runner's events, in the form of `Event.write`."""
    kind, data = event["event"], event.get("event_data", {})
    text = event.get("stdout", "").strip()
    if kind == "verbose" and text.startswith(MARK):
        yield from json.loads(text.removeprefix(MARK))
    elif kind in MESSAGES and text:
        yield Event(Kind.MESSAGE, message=text).write()
    elif kind == "playbook_on_task_start" and data["task_action"] != TASK:
        yield Event(Kind.TASK, task=data["task"]).write()
    elif (kind in ENDS or kind in ITEMS) and not _is_displayed(data):
        yield from (each.write() for each in _of_result(kind, data))


def _is_displayed(data: Mapping[str, Any]) -> bool:
    """Whether our own task has already displayed its end; it has not if it failed before its first phase."""
    return data["task_action"] == TASK and "containers" in data["res"]


def _of_result(kind: str, data: Mapping[str, Any]) -> Iterator[Event]:
    """Yield the output of a task, then how the task ended."""
    task, end = data["task"], ENDS.get(kind)
    message = str(data["res"].get("msg") or "")
    is_failure = kind not in {"runner_on_ok", "runner_item_on_ok"}
    if is_failure and data.get("ignore_errors"):
        end = None
    printed = [data["res"].get(key) for key in ("stdout", "stderr")]
    if end is None or end is Kind.OK:  # otherwise the message belongs to the event of the end
        printed.append(message)
    lines = [clipped(f"{task}: {printable(line)}") for text in printed if text for line in str(text).splitlines()]
    if len(lines) > MAX_LINES:
        lines[:-MAX_LINES] = [f"{task}: ({len(lines) - MAX_LINES} lines left out)"]
    for first in range(0, len(lines), LINES_AT_ONCE):
        yield Event(Kind.LINES, task=task, lines=lines[first : first + LINES_AT_ONCE], is_warning=is_failure)
    if end is not None:
        yield Event(end, task=task, message=message)
