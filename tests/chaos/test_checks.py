"""That the checks see what they are for."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

from tests.support.chaos.checks import Tables, complaint, untold, untrue_ends
from tests.support.chaos.docker import Docker, Left
from tests.support.chaos.host import Host, Word
from tests.support.chaos.traffic import Accepted, Deployed
from tests.support.sshd import SshServer

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


def host(home: Path) -> Host:
    (home / "docker").mkdir(parents=True)
    (home / ".daos/state/web").mkdir(parents=True)
    (home / ".daos/state/web/lock").write_text("1 run-1 deployment-1\n")
    return Host(cast(SshServer, None), home)


def accepted(status: str, reason: str | None = None, left: str = "run-1", **marker: str) -> Accepted:
    """An `up` that has ended so, where docker was left by a run, and the host has this marker."""
    run = Accepted("run-1", Deployed("deployment-1", "web", cast(Host, None), is_broken=False), "UP")
    run.end = {"status": status, "reason": reason}
    run.word = Word(marker, Left(left, "UP", "container"))
    return run


def untrue(run: Accepted, epoch: int = 1) -> list[str]:
    row: dict[str, Any] = {"message": "", "epoch": epoch, **(run.end or {"status": "RUNNING", "reason": None})}
    return list(untrue_ends([run], Tables({run.id: row}, {}, [], 0)))


def test_an_end_has_to_be_what_the_host_says() -> None:
    done = {"run": "run-1", "phase": "verify", "state": "done"}
    assert untrue(accepted("SUCCESS", **done)) == []
    assert "docker did not get so far" in untrue(accepted("SUCCESS", left="run-0", **done))[0]
    assert "nothing has happened to it" in untrue(accepted("FAILED", "INTERRUPTED"))[0]
    assert untrue(accepted("FAILED", "INTERRUPTED"), epoch=5) == []
    canceled = accepted("CANCELED", "CANCELED")
    assert "nothing has happened to it" in untrue(canceled)[0]
    canceled.troubles.append("run canceled")
    assert untrue(canceled) == []
    finished = accepted("CANCELED", "CANCELED", **done)
    finished.troubles.append("run canceled")
    assert "noted that it is done" in untrue(finished)[0]
    finished.end = None
    assert "has not ended" in untrue(finished)[0]


def test_work_beside_other_work_is_noted(tmp_path: Path) -> None:
    here = host(tmp_path)
    docker = Docker(here.home)
    with docker.at_work("web", "UP"):
        pass
    assert [event["event"] for event in here.journal()] == ["begin", "done"]
    with docker.at_work("web", "UP"), docker.at_work("web", "DOWN"):
        pass
    assert "overlap" in [event["event"] for event in here.journal()]


def test_what_followers_are_told_is_compared_with_all_there_is() -> None:
    run = accepted("SUCCESS")
    events = [("deployment-1", "PENDING", None), ("deployment-1", "RUNNING", "run-1")]
    tables = Tables({}, {"run-1": [(1, "a"), (2, "b")]}, events, 0)
    run.entries = [(1, "a"), (2, "b")]
    run.deployed.statuses = [("PENDING", None), ("RUNNING", "run-1")]
    assert list(untold([run.deployed], [run], [events[1:]], tables)) == []
    assert len(list(untold([run.deployed], [run], [[*events[1:], *events[1:]]], tables))) == 1
    run.entries.pop()
    run.deployed.statuses.reverse()
    assert len(list(untold([run.deployed], [run], [events[1:]], tables))) == 2


def test_an_error_is_expected_only_of_a_database_that_is_away() -> None:
    line = f'{{"time": "{NOON.isoformat()}", "level": "ERROR", "logger": "x", "message": "y", "traceback": "%s"}}'
    outage = [(NOON - timedelta(seconds=1), NOON)]
    assert complaint(line % "psycopg.OperationalError", outage) is None
    assert complaint(line % "psycopg.OperationalError", []) is not None
    assert complaint(line % "KeyError", outage) is not None
    assert complaint("Traceback", outage) == "Traceback"
