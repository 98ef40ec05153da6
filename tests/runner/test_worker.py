"""What a worker makes of what a host says: the log, the end and the current run.  Ansible plays, a plugin speaks."""

import json
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import select

from db.broadcast import Broadcast
from db.database import Database
from db.models import FailureReason, LogEntry, LogLevel, Run, RunPhase, RunStatus
from db.phase import Phase, PhaseOutcome
from runner.play.event import Event, Kind, Marker, MarkerState
from runner.tenure import Tenure
from runner.worker import Worker, WorkerSettings
from tests import factories
from tests.runner.engines import OK, deployment_of, local_host, queued_run
from tests.runner.plays import phase, write_reporting

TENURE = Tenure("worker-1")


@pytest.fixture
def worker(db: Database, settings: WorkerSettings, playbooks: Path) -> Worker:
    return Worker(db, Broadcast(), settings)


def phases(*those: Phase) -> list[Event]:
    """What is reported of phases that end well."""
    return [event for each in those for event in phase(each)]


async def test_a_run_that_fails_after_it_began_up_is_current(db: Database, worker: Worker, playbooks: Path) -> None:
    failure = phase(Phase.UP, reason="TASK_FAILED", detail="No.")
    write_reporting(playbooks, "deploy.yml", *phases(Phase.PREPARE, Phase.BUILD, Phase.PULL), *failure)
    run = await queued_run(db)
    await worker.play(run.id, TENURE)
    deployment = await deployment_of(db, run)
    assert (deployment.status, deployment.current_run_id) == ("FAILED", run.id)


async def test_a_run_that_fails_before_up_leaves_the_current_one(db: Database, worker: Worker, playbooks: Path) -> None:
    failure = phase(Phase.PULL, reason="IMAGE_PULL_FAILED", detail="No.")
    write_reporting(playbooks, "deploy.yml", *phase(Phase.PREPARE), *failure)
    deployment = await factories.deployment(db, on=await local_host(db))
    before = await factories.run(db, deployment, RunStatus.SUCCESS)
    run = await factories.run(db, deployment)
    await worker.play(run.id, TENURE)
    after = await deployment_of(db, run)
    assert (after.status, after.current_run_id) == ("FAILED", before.id)


@pytest.mark.parametrize(
    ("reached", "is_current"), [(Phase.BUILD, False), (Phase.PULL, False), (Phase.UP, True), (Phase.VERIFY, True)]
)
async def test_a_run_of_a_dead_worker_is_current_where_the_host_says_that_it_began_up(
    db: Database, worker: Worker, playbooks: Path, reached: Phase, is_current: bool
) -> None:
    marker = Marker("RUN", reached, MarkerState.RUNNING)
    write_reporting(playbooks, "recover.yml", *phase(Phase.RECOVER, marker=marker))
    run = await factories.run(db, await factories.deployment(db, on=await local_host(db)), RunStatus.RUNNING)
    await worker.recover(run.id, TENURE)
    current: UUID | None = (await deployment_of(db, run)).current_run_id
    assert (current == run.id) is is_current


async def test_a_reason_that_nobody_knows_is_a_task_that_failed(
    db: Database, worker: Worker, playbooks: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_reporting(playbooks, "deploy.yml", *phase(Phase.PREPARE, reason="BORED", detail="No."))
    run = await queued_run(db)
    await worker.play(run.id, TENURE)
    async with db.read() as session:
        ended = await session.get_one(Run, run.id)
    assert (ended.reason, ended.message) == (FailureReason.TASK_FAILED, "Prepare failed: No.")
    assert "failed in daos itself" not in caplog.text


async def test_a_marker_that_names_no_run_is_nobodys(db: Database, worker: Worker, playbooks: Path) -> None:
    write_reporting(playbooks, "recover.yml", *phase(Phase.RECOVER, marker=Marker(phase=Phase.UP)))
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
    quiet = phase(Phase.BUILD)[1:]  # it ends without having been announced
    failure = phase(Phase.PULL, reason="IMAGE_PULL_FAILED", detail="denied")
    write_reporting(playbooks, "deploy.yml", *phase(Phase.PREPARE), *quiet, *failure)
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
    failure = phase(Phase.PULL, "Error: pull access denied", reason="IMAGE_PULL_FAILED", detail=detail)
    write_reporting(playbooks, "deploy.yml", *phase(Phase.PREPARE), *failure)
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
    write_reporting(
        playbooks, "recover.yml", *phase(Phase.RECOVER, reason="DOCKER_UNAVAILABLE", detail="docker is away")
    )
    run = await queued_run(db)
    await worker.play(run.id, TENURE)
    assert (LogLevel.ERROR, Phase.RECOVER, "docker is away") in await _said(db, run)


async def test_a_run_has_the_containers_and_warnings_that_its_host_told(
    db: Database, worker: Worker, playbooks: Path
) -> None:
    told = phase(Phase.VERIFY, containers=[factories.container()], warnings=["s3cret is not set"])
    write_reporting(playbooks, "deploy.yml", *phases(Phase.PREPARE, Phase.BUILD, Phase.PULL, Phase.UP), *told)
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
    begun, failed = phase(Phase.PULL, reason="TASK_FAILED", detail="No.", warnings=["careful"])
    half = Event(Kind.PROGRESS, Phase.PULL, fraction=0.5)
    warning = Event(Kind.LINES, Phase.PULL, lines=["careful"], is_warning=True)
    events = [*phases(Phase.PREPARE, Phase.BUILD), begun, half, warning, failed]
    write_reporting(playbooks, "deploy.yml", *events)
    run = await queued_run(db)
    await worker.play(run.id, TENURE)
    assert (LogLevel.WARNING, Phase.PULL, "careful") in await _said(db, run)
    async with db.read() as session:
        ended = await session.get_one(Run, run.id)
    assert ended.warnings == ["careful"]
    assert ended.progress == pytest.approx(0.4)


OWN = """
- name: Deploy
  hosts: all
  gather_facts: false
  tasks:
    - name: Announce
      ansible.builtin.raw: "echo with s3cret; exit {code}"
    - name: Report
      compose_project:
        events: {events}
"""


@pytest.mark.parametrize("code", [0, 3])
async def test_what_tasks_of_an_operators_playbook_print_is_in_the_log_and_masked(
    db: Database, settings: WorkerSettings, playbooks: Path, tmp_path: Path, code: int
) -> None:
    events = phases(Phase.PREPARE, Phase.BUILD, Phase.PULL, Phase.UP, Phase.VERIFY)
    write_reporting(playbooks, "deploy.yml")
    own = tmp_path / "own"
    own.mkdir()
    (own / "deploy.yml").write_text(OWN.format(code=code, events=json.dumps([event.write() for event in events])))
    run = await factories.run(db, await factories.deployment(db, on=await local_host(db), secrets={"A": "s3cret"}))
    await Worker(db, Broadcast(), replace(settings, playbooks=own)).play(run.id, TENURE)
    said = await _said(db, run)
    assert (LogLevel.WARNING if code else LogLevel.INFO, None, "Announce: with ********") in said
    async with db.read() as session:
        ended = await session.get_one(Run, run.id)
    assert ended.status == (RunStatus.FAILED if code else RunStatus.SUCCESS)
    if code:
        assert (ended.reason, ended.message) == (
            FailureReason.TASK_FAILED,
            "Task 'Announce' failed: non-zero return code",
        )
