"""What has to hold afterwards: each function gives a sentence for everything that does not."""

import json
import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import psycopg
from psycopg.rows import dict_row

from db.models import RunAction
from db.run_phases import OF_ACTION
from runner.tenure import MAX_CLAIMS
from tests.support.chaos.docker import Left
from tests.support.chaos.host import Host
from tests.support.chaos.nodes import Node
from tests.support.chaos.traffic import Accepted, Deployed
from tests.support.chaos.troubles import PLAY_KILLED, RUN_CANCELED
from tests.support.remains import Place, command

Row = Mapping[str, Any]

CANNOT_START = "daos: the database cannot be used: "
FORGOTTEN = "Job was not found"  # of a run that was taken from this worker
AFTERMATH = timedelta(seconds=20)  # after an outage, until everybody has noticed that it is over
DATABASE_ERRORS = ("OperationalError", "InterfaceError", "psycopg.errors.", "PoolTimeout", "ConnectorException")
IDS = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}|\b[0-9a-f]{16}\b|0x[0-9a-f]+")


@dataclass(frozen=True)
class Tables:
    """What the database has in the end."""

    runs: Mapping[str, Row]  # by id
    entries: Mapping[str, Sequence[tuple[int, str]]]  # by the run's id
    events: Sequence[tuple[str, str, str | None]]  # deployment, status, run; in order
    jobs: int  # in the queue

    @classmethod
    def read(cls, url: str) -> "Tables":
        with psycopg.connect(url, row_factory=dict_row) as connection:
            runs = connection.execute("SELECT * FROM runs").fetchall()
            entries = defaultdict(list)
            for row in connection.execute("SELECT run_id, sequence, message FROM log_entries ORDER BY sequence"):
                entries[str(row["run_id"])].append((row["sequence"], row["message"]))
            events = [
                (str(row["deployment_id"]), row["status"], str(row["run_id"]) if row["run_id"] else None)
                for row in connection.execute("SELECT * FROM status_events ORDER BY sequence")
            ]
            jobs = connection.execute("SELECT id FROM procrastinate_jobs").fetchall()
            return cls({str(run["id"]): run for run in runs}, entries, events, len(jobs))


def untrue_ends(runs: Iterable[Accepted], tables: Tables) -> Iterator[str]:
    """Runs that have not ended, or in another way than their hosts say."""
    for run in runs:
        row = tables.runs.get(run.id)
        if row is None:
            yield f"run {run.id} was accepted and is not there"
        elif run.end is None:
            yield f"run {run.id} has not ended: {row['status']}, claimed {row['epoch']} times, {run.troubles}"
        elif (fault := _fault(run, row)) is not None:
            left = run.word.left if run.word else None
            yield (
                f"run {run.id}, {run.action} of {run.deployed.project}, ended as {row['status']} {row['reason'] or ''} "
                f"({row['message']}), but {fault}; claimed {row['epoch']} times, troubles {run.troubles}, "
                f"marker {run.word and run.word.marker}, docker was left by {left and (left.run, left.action)}"
            )


def _fault(run: Accepted, row: Row) -> str | None:
    """What is wrong with a run's end, by what its host said before the next one began."""
    assert run.end is not None
    assert run.word is not None
    status, reason = run.end["status"], run.end["reason"]
    if (status, reason) != (row["status"], row["reason"]):
        return f"the API says {status} {reason}"
    if status == "SUCCESS":
        return None if _is_done(run, run.word.left) else "docker did not get so far"
    is_worn_out = row["epoch"] >= MAX_CLAIMS
    if _is_noted(run, run.word.marker) and not is_worn_out:
        return "its host has noted that it is done"
    was_killed = PLAY_KILLED in run.troubles
    may_be = {
        "CANCELED": RUN_CANCELED in run.troubles,
        "TASK_FAILED": run.deployed.is_broken and _of(run.word.marker, "run", "state") == (run.id, "failed"),
        "INTERRUPTED": was_killed or is_worn_out,  # else it is played again
        "ANSIBLE_ERROR": was_killed,
        "HOST_UNREACHABLE": was_killed,
    }
    return None if may_be.get(reason) else "nothing has happened to it that ends so"


def _is_done(run: Accepted, left: Left | None) -> bool:
    """Whether docker was left with what the run is for: a container that it has made, or none, whoever took it down."""
    if run.action == "DOWN":
        return left is None or not left.container
    return left is not None and left.run == run.id


def _is_noted(run: Accepted, marker: Mapping[str, str]) -> bool:
    """Whether the host has noted that all of the run was done."""
    last = OF_ACTION[RunAction(run.action)][-1].word
    return _of(marker, "run", "phase", "state") == (run.id, last, "done")


def _of(marker: Mapping[str, str], *names: str) -> tuple[str | None, ...]:
    return tuple(map(marker.get, names))


def overlaps(hosts: Iterable[Host]) -> Iterator[str]:
    """Executions of one project that were at work at the same time, by what the hosts have written down."""
    for host in hosts:
        for event in host.journal():
            if event["event"] == "overlap":
                yield f"{event['action']} of {event['project']} by run {event['run']} beside another one"


def untold(
    deployed: Sequence[Deployed],
    runs: Iterable[Accepted],
    changes: Iterable[Sequence[tuple[str, str, str | None]]],
    tables: Tables,
) -> Iterator[str]:
    """What followers were not told once and in order, and gaps in what there was to tell."""
    for run in runs:
        entries = tables.entries.get(run.id, [])
        if [sequence for sequence, _ in entries] != list(range(1, len(entries) + 1)):
            yield f"the log of run {run.id} has gaps: {[sequence for sequence, _ in entries]}"
        if run.entries != entries:
            yield f"the follower of run {run.id}'s log was told {_difference(run.entries, entries)}"
    for each in deployed:
        statuses = [(status, run) for deployment, status, run in tables.events if deployment == each.id]
        if each.statuses != statuses:
            yield f"the follower of {each.project} was told {_difference(each.statuses, statuses)}"
    everything = list(tables.events[1:])  # behind the first one, where the followers began
    for number, seen in enumerate(changes, start=1):
        if list(seen) != everything:
            yield f"follower {number} of all changes was told {_difference(seen, everything)}"


def _difference(told: Sequence[object], there: Sequence[object]) -> str:
    """Where the two part."""
    common = next((at for at, (one, other) in enumerate(zip(told, there, strict=False)) if one != other), None)
    at = min(len(told), len(there)) if common is None else common
    return (
        f"{len(told)} instead of {len(there)}; from {at} on {list(told[at : at + 3])}, not {list(there[at : at + 3])}"
    )


def at_work(nodes: Iterable[Node], hosts: Iterable[Host]) -> list[str]:
    """What is at work or left of a run, on either side, when none is active."""
    return [
        *(f"{node.name}: {line}" for node in nodes for line in node.server.processes().values()),
        *(f"on a host: {process.command}" for host in hosts for process in host.sshd.processes()),
        *(f"on a host: {path}" for host in hosts for path in host.scratch()),
    ]


def remains(nodes: Iterable[Node], hosts: Iterable[Host]) -> list[str]:
    """What is left, on either side, of nodes that have ended."""
    found = at_work(nodes, hosts)
    for host in hosts:
        found += [f"sshd of a host: {process.name}" for process in host.sshd.connections()]
    for node in nodes:
        root = node.server.run_root
        place = Place(node.server, next(iter(hosts)).sshd, [], [])
        found += [f"{node.name}: {command(pid)}" for pid in place.processes()]
        found += [f"{node.name}: {path}" for path in root.parent.glob(f"{root.name}*")]
    return found


def settled(look: Callable[[], list[str]], seconds: float) -> list[str]:
    """What is still found when it has had so many seconds to go away."""
    deadline = time.monotonic() + seconds
    while (found := look()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return found


def unexpected_words(nodes: Iterable[Node], outages: Sequence[tuple[datetime, datetime]]) -> Iterator[str]:
    """Errors that the nodes have logged, but for a database that was away, and what no logger has written."""
    found: Counter[str] = Counter()
    for node in nodes:
        for line in node.server.log.splitlines():
            words = complaint(line, outages)
            if words is not None:
                found[IDS.sub("…", f"{node.name.split()[0]} said: {words}")] += 1
    return (f"{count} times {words}" for words, count in found.most_common())


def complaint(line: str, outages: Sequence[tuple[datetime, datetime]]) -> str | None:
    """What is wrong in a line of a log."""
    try:
        said = json.loads(line)
    except ValueError:
        return None if line.startswith(CANNOT_START) else line
    trace = said.get("traceback", "")
    if said["level"] not in {"ERROR", "CRITICAL"} and not trace:
        return None
    at = datetime.fromisoformat(said["time"])
    # procrastinate tells what has befallen its parts when it ends, whenever that is.
    aftermath = timedelta.max / 2 if said["logger"] == "procrastinate.utils" else AFTERMATH
    is_away = any(beginning <= at and at - end <= aftermath for beginning, end in outages)
    if FORGOTTEN in trace or (is_away and any(name in trace for name in DATABASE_ERRORS)):
        return None
    return f"{said['logger']}: {said['message']} {trace}"
