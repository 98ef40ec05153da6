"""What a worker makes of what a host says: the log, the end and the current run.  Ansible plays, a plugin speaks."""

from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select

from db.broadcast import Broadcast
from db.database import Database
from db.models import FailureReason, LogEntry, LogLevel, Run, RunPhase, RunStatus
from db.phase import Phase, PhaseOutcome
from runner.tenure import Tenure
from runner.worker import Worker, WorkerSettings
from tests import factories
from tests.runner.engines import OK, deployment_of, local_host, queued_run
from tests.runner.plays import phase, write_telling

ANSWER = {"busy": False, "verdict": None}
TENURE = Tenure("worker-1")


@pytest.fixture
def worker(db: Database, settings: WorkerSettings, playbooks: Path) -> Worker:
    return Worker(db, Broadcast(), settings)


def phases(*names: str) -> list[dict[str, Any]]:
    """What is told of phases that end well."""
    return [message for name in names for message in phase(name)]


async def test_a_run_that_fails_after_it_began_up_is_current(db: Database, worker: Worker, playbooks: Path) -> None:
    failure = phase("up", reason="TASK_FAILED", detail="No.")
    write_telling(playbooks, "deploy.yml", *phases("prepare", "build", "pull"), *failure)
    run = await queued_run(db)
    await worker.play(run.id, TENURE)
    deployment = await deployment_of(db, run)
    assert (deployment.status, deployment.current_run_id) == ("FAILED", run.id)


async def test_a_run_that_fails_before_up_leaves_the_current_one(db: Database, worker: Worker, playbooks: Path) -> None:
    failure = phase("pull", reason="IMAGE_PULL_FAILED", detail="No.")
    write_telling(playbooks, "deploy.yml", *phase("prepare"), *failure)
    deployment = await factories.deployment(db, on=await local_host(db))
    before = await factories.run(db, deployment, RunStatus.SUCCESS)
    run = await factories.run(db, deployment)
    await worker.play(run.id, TENURE)
    after = await deployment_of(db, run)
    assert (after.status, after.current_run_id) == ("FAILED", before.id)


@pytest.mark.parametrize(("reached", "is_current"), [("build", False), ("pull", False), ("up", True), ("verify", True)])
async def test_a_run_of_a_dead_worker_is_current_where_the_host_says_that_it_began_up(
    db: Database, worker: Worker, playbooks: Path, reached: str, is_current: bool
) -> None:
    marker = {"run": "RUN", "phase": reached, "state": "running"}
    write_telling(playbooks, "recover.yml", *phase("recover", marker=marker, **ANSWER))
    run = await factories.run(db, await factories.deployment(db, on=await local_host(db)), RunStatus.RUNNING)
    await worker.recover(run.id, TENURE)
    current: UUID | None = (await deployment_of(db, run)).current_run_id
    assert (current == run.id) is is_current


async def test_a_reason_that_nobody_knows_is_a_task_that_failed(
    db: Database, worker: Worker, playbooks: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_telling(playbooks, "deploy.yml", *phase("prepare", reason="BORED", detail="No."))
    run = await queued_run(db)
    await worker.play(run.id, TENURE)
    async with db.read() as session:
        ended = await session.get_one(Run, run.id)
    assert (ended.reason, ended.message) == (FailureReason.TASK_FAILED, "Prepare failed: No.")
    assert "failed in daos itself" not in caplog.text


async def test_a_marker_that_names_no_run_is_nobodys(db: Database, worker: Worker, playbooks: Path) -> None:
    write_telling(playbooks, "recover.yml", *phase("recover", marker={"phase": "up"}, **ANSWER))
    run = await factories.run(db, await factories.deployment(db, on=await local_host(db)), RunStatus.RUNNING)
    await worker.recover(run.id, TENURE)
    async with db.read() as session:
        ended = await session.get_one(Run, run.id)
    assert ended.reason is FailureReason.INTERRUPTED
    assert "daos itself failed" not in str(ended.message)


async def _said(db: Database, run: Run) -> list[tuple[LogLevel, Phase | None, str]]:
    async with db.read() as session:
        entries = await session.scalars(select(LogEntry).where(LogEntry.run_id == run.id).order_by(LogEntry.sequence))
        return [(entry.level, entry.phase, entry.message) for entry in entries]


async def _phases(db: Database, run: Run) -> list[tuple[Phase | None, PhaseOutcome | None, bool]]:
    """The phases with their outcomes, and whether they have times."""
    async with db.read() as session:
        rows = await session.scalars(select(RunPhase).where(RunPhase.run_id == run.id).order_by(RunPhase.position))
        return [(row.phase, row.outcome, row.started_at is not None and row.finished_at is not None) for row in rows]


async def test_the_phases_of_a_run_are_those_that_were_played(db: Database, worker: Worker, playbooks: Path) -> None:
    quiet = phase("build")[1:]  # it ends without having been announced
    failure = phase("pull", reason="IMAGE_PULL_FAILED", detail="denied")
    write_telling(playbooks, "deploy.yml", *phase("prepare"), *quiet, *failure)
    run = await queued_run(db)
    await worker.play(run.id, TENURE)
    assert await _phases(db, run) == [
        (Phase.PREPARE, PhaseOutcome.OK, True),
        (Phase.BUILD, PhaseOutcome.SKIPPED, False),
        (Phase.PULL, PhaseOutcome.FAILED, True),
        (Phase.UP, PhaseOutcome.SKIPPED, False),
        (Phase.VERIFY, PhaseOutcome.SKIPPED, False),
    ]


async def test_the_sentence_of_a_failure_is_in_the_log_once(db: Database, worker: Worker, playbooks: Path) -> None:
    detail = "service web needs the image demo:1"
    failure = phase("pull", "Error: pull access denied", reason="IMAGE_PULL_FAILED", detail=detail)
    write_telling(playbooks, "deploy.yml", *phase("prepare"), *failure)
    run = await queued_run(db)
    await worker.play(run.id, TENURE)
    said = await _said(db, run)
    [(level, said_in, message)] = [each for each in said if detail in each[2]]
    assert (level, said_in, message) == said[-1] == (LogLevel.ERROR, None, message)
    assert (LogLevel.INFO, Phase.PULL, "Error: pull access denied") in said
    assert [each for each in said if each[0] is LogLevel.ERROR] == [said[-1]]


async def test_a_failure_that_the_runs_sentence_does_not_repeat_is_in_the_log(
    db: Database, worker: Worker, playbooks: Path
) -> None:
    (playbooks / "deploy.yml").write_text(OK)  # which is no verdict, so the host is asked
    write_telling(playbooks, "recover.yml", *phase("recover", reason="DOCKER_UNAVAILABLE", detail="docker is away"))
    run = await queued_run(db)
    await worker.play(run.id, TENURE)
    assert (LogLevel.ERROR, Phase.RECOVER, "docker is away") in await _said(db, run)


async def test_a_run_has_the_containers_and_warnings_that_its_host_told(
    db: Database, worker: Worker, playbooks: Path
) -> None:
    told = phase("verify", containers=[factories.container().write()], warnings=["s3cret is not set"])
    write_telling(playbooks, "deploy.yml", *phases("prepare", "build", "pull", "up"), *told)
    run = await factories.run(db, await factories.deployment(db, on=await local_host(db), secrets={"A": "s3cret"}))
    await worker.play(run.id, TENURE)
    async with db.read() as session:
        ended = await session.get_one(Run, run.id)
    assert (ended.status, ended.containers) == (RunStatus.SUCCESS, [factories.container()])
    assert ended.warnings == ["******** is not set"]
    assert ended.message == "The project is up: 1 service, 1 warning."


async def test_warnings_are_warnings_in_the_log_and_a_pull_moves_the_progress(
    db: Database, worker: Worker, playbooks: Path
) -> None:
    messages: list[dict[str, Any]] = [
        {"phase": "pull"},
        {"phase": "pull", "fraction": 0.5},
        {"phase": "pull", "warnings": ["careful"]},
    ]
    failure = {"failed": True, "reason": "TASK_FAILED", "detail": "No."}
    end: dict[str, Any] = {
        "phase": "pull",
        "end": {"changed": False, "containers": [], "warnings": ["careful"], **failure},
    }
    write_telling(playbooks, "deploy.yml", *phases("prepare", "build"), *messages, end)
    run = await queued_run(db)
    await worker.play(run.id, TENURE)
    assert (LogLevel.WARNING, Phase.PULL, "careful") in await _said(db, run)
    async with db.read() as session:
        ended = await session.get_one(Run, run.id)
    assert ended.warnings == ["careful"]
    assert ended.progress == pytest.approx(0.4)
