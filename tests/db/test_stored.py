"""What cannot be read in a row is left out, and the rest of the row and of its list is there."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select, text

from db import status, stored
from db.containers import ContainerHealth, ContainerState
from db.database import Database
from db.models import FailureReason, LogEntry, LogLevel, Run, RunStatus
from db.phase import Phase
from tests import factories


@pytest.fixture(autouse=True)
def unreported() -> None:
    """Nothing has been logged yet."""
    stored.report.cache_clear()


async def _store(db: Database, run: Run, column: str, value: str) -> None:
    async with db.write() as session:
        changed = text(f"UPDATE runs SET {column} = :value WHERE number = :number")  # noqa: S608 - a name of ours
        await session.execute(changed, {"value": value, "number": run.number})


async def _runs(db: Database) -> list[Run]:
    async with db.read() as session:
        return list(await session.scalars(select(Run).order_by(Run.number)))


async def _two(db: Database) -> tuple[Run, Run]:
    deployment = await factories.deployment(db)
    first, second = [await factories.run(db, deployment, RunStatus.FAILED) for _ in range(2)]
    for run in (first, second):
        await _store(db, run, "warnings", '["old"]')
    return first, second


@pytest.mark.parametrize(
    ("column", "value", "shown"),
    [
        ("reason", "BORED", FailureReason.TASK_FAILED),
        ("reason", "", FailureReason.TASK_FAILED),
        ("warnings", json.dumps("old"), []),
        ("warnings", json.dumps({"old": 1}), []),
        ("warnings", json.dumps(["old", 5, None, ["older"]]), ["old"]),
        ("warnings", "null", []),
        ("containers", json.dumps([{"name": "web"}]), []),
        ("containers", json.dumps(5), []),
    ],
)
async def test_a_value_that_cannot_be_read_hides_no_other_run(
    db: Database, caplog: pytest.LogCaptureFixture, column: str, value: str, shown: Any
) -> None:
    first, second = await _two(db)
    await _store(db, first, column, value)
    for _ in range(3):
        found = await _runs(db)
    assert getattr(found[0], column) == shown
    assert found[1].warnings == ["old"]
    assert found[1].number == second.number
    assert len([record for record in caplog.records if "cannot be read" in record.message]) == (value != "null")


@pytest.mark.parametrize("column", ["warnings", "containers"])
@pytest.mark.parametrize("value", ["", "{", "[1", "nothing"])
async def test_broken_json_hides_no_other_run(sqlite_db: Database, column: str, value: str) -> None:
    """PostgreSQL refuses to store any."""
    first, _ = await _two(sqlite_db)
    await _store(sqlite_db, first, column, value)
    found = await _runs(sqlite_db)
    assert getattr(found[0], column) == []
    assert found[1].warnings == ["old"]


async def test_a_level_that_nobody_knows_is_a_warning(db: Database) -> None:
    run = await factories.run(db, to=RunStatus.RUNNING)
    await factories.log(db, run, 2)
    async with db.write() as session:
        await session.execute(text("UPDATE log_entries SET level = 'LOUD' WHERE sequence = 1"))
    async with db.read() as session:
        levels = list(await session.scalars(select(LogEntry.level).order_by(LogEntry.sequence)))
    assert levels == [LogLevel.WARNING, LogLevel.INFO]


async def test_a_phase_that_nobody_knows_is_none(db: Database) -> None:
    run = await factories.run(db, to=RunStatus.RUNNING)
    await factories.log(db, run, 2)
    async with db.write() as session:
        await session.execute(text("UPDATE log_entries SET phase = 'WASH' WHERE sequence = 1"))
    async with db.read() as session:
        phases = list(await session.scalars(select(LogEntry.phase).order_by(LogEntry.sequence)))
    assert phases == [None, Phase.UP]


async def test_what_is_written_is_read_again(db: Database) -> None:
    run = await factories.run(db, to=RunStatus.RUNNING)
    async with db.write() as session:
        assert await status.finish(session, run.id, run.epoch, replace(factories.end(), warnings=["one", "two"]))
    [found] = await _runs(db)
    assert (found.id, found.warnings, found.reason) == (run.id, ["one", "two"], run.reason)


async def test_containers_are_stored_without_loss(db: Database) -> None:
    containers = [
        factories.container(health=ContainerHealth.HEALTHY, restarts=2, ports=("443/tcp",)),
        factories.container(state=ContainerState.DEAD, exit_code=-1, health=ContainerHealth.STARTING),
        factories.container(image="", started_at=datetime.max.replace(tzinfo=UTC) - timedelta(days=1)),
    ]
    run = await factories.run(db, to=RunStatus.FAILED, containers=containers)
    async with db.read() as session:
        assert (await session.get_one(Run, run.id)).containers == containers


async def test_stored_containers_that_cannot_be_read_are_left_out(db: Database) -> None:
    run = await factories.run(db, to=RunStatus.FAILED)
    web = factories.container()
    for value, count in (([web.write(), {"name": "old"}, 5], 1), ({}, 0), ("web", 0)):
        await _store(db, run, "containers", json.dumps(value))
        async with db.read() as session:
            found = await session.get_one(Run, run.id)
        assert found.containers == [web] * count
