"""What the server needs to know of ansible-runner's events.  Pure.

Our own task has displayed its events itself, and these are passed on as they are.  Of an operator's tasks the log has
what they print, with their names.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from runner.host.text import clipped, printable
from runner.play.event import MARK, TASK, Event, Kind

WORDS = {"verbose", "warning", "error", "deprecated", "system_warning"}  # what Ansible says outside of tasks
ENDS = {"runner_on_ok": Kind.OK, "runner_on_failed": Kind.FAILED, "runner_on_unreachable": Kind.UNREACHABLE}
ITEMS = {"runner_item_on_ok", "runner_item_on_failed"}  # of a loop, whose own end follows
MAX_LINES = 1000  # of one result; what a program prints last says why it failed
LINES_AT_ONCE = 100  # in one event


def reported(event: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What to write to the server of one of ansible-runner's events, as `Event.write` writes it."""
    kind, data = event["event"], event.get("event_data", {})
    words = event.get("stdout", "").strip()
    if kind == "verbose" and words.startswith(MARK):
        yield from json.loads(words.removeprefix(MARK))
    elif kind in WORDS and words:
        yield Event(Kind.WORDS, message=words).write()
    elif kind == "playbook_on_task_start" and data["task_action"] != TASK:
        yield Event(Kind.TASK, task=data["task"]).write()
    elif (kind in ENDS or kind in ITEMS) and not _is_displayed(data):
        yield from (each.write() for each in _of_result(kind, data))


def _is_displayed(data: Mapping[str, Any]) -> bool:
    """Whether our own task has displayed this end itself: not where it did not get to its phases."""
    return data["task_action"] == TASK and "containers" in data["res"]


def _of_result(kind: str, data: Mapping[str, Any]) -> Iterator[Event]:
    """What a task has printed, and how it ended."""
    task, end = data["task"], ENDS.get(kind)
    message = str(data["res"].get("msg") or "")
    is_failure = kind not in {"runner_on_ok", "runner_item_on_ok"}
    if is_failure and data.get("ignore_errors"):
        end = None
    printed = [data["res"].get(key) for key in ("stdout", "stderr")]
    if end is None or end is Kind.OK:  # otherwise the message is the end's
        printed.append(message)
    lines = [clipped(f"{task}: {printable(line)}") for text in printed if text for line in str(text).splitlines()]
    if len(lines) > MAX_LINES:
        lines[:-MAX_LINES] = [f"{task}: ({len(lines) - MAX_LINES} lines left out)"]
    for first in range(0, len(lines), LINES_AT_ONCE):
        yield Event(Kind.LINES, task=task, lines=lines[first : first + LINES_AT_ONCE], is_warning=is_failure)
    if end is not None:
        yield Event(end, task=task, message=message)
