"""The embedded engine and its worker: every queued run is played once and reaches an end, whatever happens on the way.

Ansible really plays here, on a playbook folder that does nothing; tests/e2e has the real one.
"""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import text, update

from db import status
from db.broadcast import Broadcast
from db.database import Database, sqlite_url
from db.models import DeploymentStatus, FailureReason, HostTransport, Run, RunStatus, now
from runner import processes
from runner.engine.embedded import EmbeddedEngine
from runner.spec.run import Timeouts
from runner.tenure import Tenure
from runner.worker import Worker, WorkerSettings
from tests import factories
from tests.runner.engines import SLEEP, deployment_of, ended, local_host, queued_run, until_playing

TENURE = Tenure("worker-1")


@asynccontextmanager
async def serving(
    db: Database, settings: WorkerSettings, concurrency: int = 2
) -> AsyncIterator[tuple[EmbeddedEngine, Broadcast]]:
    broadcast = Broadcast()
    engine = EmbeddedEngine(db, Worker(db, broadcast, settings), concurrency)
    async with asyncio.TaskGroup() as group:
        group.create_task(engine.serve())
        try:
            yield engine, broadcast
        finally:
            await engine.drain(grace=0.0)


async def test_a_queued_run_is_played_and_leaves_nothing_behind(
    db: Database, settings: WorkerSettings, playbooks: Path
) -> None:
    run = await queued_run(db)
    async with serving(db, settings) as (_, broadcast):
        end = await ended(db, broadcast, run.id)
        assert list(settings.run_root.iterdir()) == []
        assert processes.find(settings.cookie) == []
    # The playbook has only one of the phases and no word of the host: no verdict, and so no success.
    assert (end.status, end.reason) == (RunStatus.FAILED, FailureReason.INTERRUPTED)
    assert end.started_at is not None
    assert (await deployment_of(db, run)).status is DeploymentStatus.FAILED
    assert not settings.run_root.exists()


async def test_the_engine_tells_how_long_a_run_had_to_wait(
    db: Database, settings: WorkerSettings, playbooks: Path
) -> None:
    run = await queued_run(db)
    async with db.write() as session:
        await session.execute(update(Run).where(Run.id == run.id).values(queued_at=now() - timedelta(minutes=1)))
    waits = list[float]()
    broadcast = Broadcast()
    worker = Worker(db, broadcast, settings, waited=waits.append)
    await worker.play(run.id, TENURE)
    await worker.play(run.id, TENURE)  # it is over, and nobody waits
    assert len(waits) == 1
    assert 60 <= waits[0] < 80


async def test_a_run_that_is_played_again_does_not_count_as_one_that_has_waited(
    db: Database, settings: WorkerSettings, playbooks: Path
) -> None:
    run = await queued_run(db)
    async with db.write() as session:
        claimed = await status.claim(session, run.id, "another")
        assert claimed is not None
        assert await status.hand_back(session, run.id, claimed.epoch)
    waits = list[float]()
    await Worker(db, Broadcast(), settings, waited=waits.append).play(run.id, TENURE)
    assert waits == []


async def test_the_engine_lags_where_it_cannot_read_the_queue(
    tmp_path: Path, settings: WorkerSettings, sqlite_template: Path
) -> None:
    path = shutil.copy(sqlite_template, tmp_path / "daos.db")
    async with factories.database(sqlite_url(Path(path))) as db, serving(db, settings) as (engine, _):
        async with asyncio.timeout(10):
            while not engine.ready:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.01)
        async with db.write() as session:
            await session.execute(text("ALTER TABLE runs RENAME TO away"))
        before = engine.lag
        engine.wake()
        await asyncio.sleep(0.3)
        assert engine.lag > before
        async with db.write() as session:
            await session.execute(text("ALTER TABLE away RENAME TO runs"))
        await asyncio.sleep(0.1)
        lag = engine.lag
        engine.wake()
        async with asyncio.timeout(10):
            while engine.lag >= lag:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.01)


async def test_ansibles_own_failure_is_told_with_its_words(
    db: Database, settings: WorkerSettings, playbooks: Path
) -> None:
    (playbooks / "deploy.yml").write_text("no playbook")
    run = await queued_run(db)
    async with serving(db, settings) as (_, broadcast):
        end = await ended(db, broadcast, run.id)
    assert end.reason is FailureReason.ANSIBLE_ERROR
    assert end.message is not None
    assert "playbook" in end.message


async def test_no_more_runs_are_played_at_once_than_allowed(
    db: Database, settings: WorkerSettings, playbooks: Path
) -> None:
    (playbooks / "deploy.yml").write_text(SLEEP)
    runs = [await queued_run(db) for _ in range(3)]
    async with serving(db, settings, concurrency=2) as (engine, _):
        await until_playing(f"{settings.cookie}/{runs[1].id}")
        async with db.read() as session:
            statuses = [(await session.get_one(Run, run.id)).status for run in runs]
        assert statuses == [RunStatus.RUNNING, RunStatus.RUNNING, RunStatus.QUEUED]  # oldest first
        assert engine.active == 2


async def test_a_host_that_hangs_holds_up_no_other(db: Database, settings: WorkerSettings, playbooks: Path) -> None:
    (playbooks / "deploy.yml").write_text(SLEEP)
    hangs = await local_host(db)
    runs = [await queued_run(db, on=hangs) for _ in range(5)]
    other = await queued_run(db)
    async with serving(db, settings, concurrency=5) as (engine, _):
        await until_playing(f"{settings.cookie}/{other.id}")
        assert engine.active == 5
        async with db.read() as session:
            statuses = [(await session.get_one(Run, run.id)).status for run in runs]
        assert statuses == [*[RunStatus.RUNNING] * 4, RunStatus.QUEUED]


async def test_a_run_of_higher_priority_is_played_first(
    db: Database, settings: WorkerSettings, playbooks: Path
) -> None:
    host = await local_host(db)
    runs = [
        await factories.run(db, await factories.deployment(db, on=host), priority=priority) for priority in (-1, 0, 1)
    ]
    async with serving(db, settings, concurrency=1) as (_, broadcast):
        started = [(await ended(db, broadcast, run.id)).started_at for run in runs]
    assert None not in started
    assert sorted(started, key=str) == started[::-1]


async def test_a_stopped_server_interrupts_its_runs_and_keeps_its_queue(
    db: Database, settings: WorkerSettings, playbooks: Path
) -> None:
    (playbooks / "deploy.yml").write_text(SLEEP)
    playing, waiting = await queued_run(db), await queued_run(db)
    async with serving(db, settings, concurrency=1):
        await until_playing(settings.cookie)
    async with db.read() as session:
        first, second = await session.get_one(Run, playing.id), await session.get_one(Run, waiting.id)
    assert (first.status, first.reason) == (RunStatus.FAILED, FailureReason.INTERRUPTED)
    assert first.message is not None
    assert "The server was stopped" in first.message
    assert second.status is RunStatus.QUEUED
    assert processes.find(settings.cookie) == []


async def test_a_run_that_takes_too_long_ends_as_a_time_out(
    db: Database, settings: WorkerSettings, playbooks: Path
) -> None:
    (playbooks / "deploy.yml").write_text(SLEEP)
    run = await queued_run(db)
    short = WorkerSettings(settings.run_root, settings.cookie, Timeouts(run=1))
    async with serving(db, short) as (_, broadcast):
        end = await ended(db, broadcast, run.id)
        assert processes.find(settings.cookie) == []
    assert (end.status, end.reason) == (RunStatus.FAILED, FailureReason.TIMEOUT)


async def test_a_canceled_run_has_no_process_left_when_it_says_so(
    db: Database, settings: WorkerSettings, playbooks: Path
) -> None:
    (playbooks / "deploy.yml").write_text(SLEEP)
    run = await queued_run(db)
    async with serving(db, settings) as (engine, broadcast):
        await until_playing(settings.cookie)
        async with db.write() as session:
            await status.request_cancel(session, run.id)
        engine.cancel(run.id)
        end = await ended(db, broadcast, run.id)
        assert processes.find(settings.cookie) == []
    assert (end.status, end.reason) == (RunStatus.CANCELED, FailureReason.CANCELED)
    assert (await deployment_of(db, run)).status is DeploymentStatus.FAILED


async def test_a_run_of_a_dead_worker_is_recovered_at_the_start(
    db: Database, settings: WorkerSettings, playbooks: Path
) -> None:
    host = await factories.host(db, transport=HostTransport.LOCAL, address=None)
    run = await factories.run(db, await factories.deployment(db, on=host), to=RunStatus.RUNNING)
    async with serving(db, settings) as (_, broadcast):
        end = await ended(db, broadcast, run.id)
    assert (end.status, end.reason) == (RunStatus.FAILED, FailureReason.INTERRUPTED)
    assert end.epoch == run.epoch + 1


async def test_a_canceled_run_of_a_dead_worker_ends_as_canceled(
    db: Database, settings: WorkerSettings, playbooks: Path
) -> None:
    host = await factories.host(db, transport=HostTransport.LOCAL, address=None)
    run = await factories.run(db, await factories.deployment(db, on=host), to=RunStatus.RUNNING)
    async with db.write() as session:
        await status.request_cancel(session, run.id)
    async with serving(db, settings) as (_, broadcast):
        assert (await ended(db, broadcast, run.id)).status is RunStatus.CANCELED


async def test_a_run_says_that_somebody_else_has_taken_its_place(
    db: Database, settings: WorkerSettings, playbooks: Path
) -> None:
    run = await queued_run(db)
    settings.run_root.symlink_to(playbooks)
    async with serving(db, settings) as (_, broadcast):
        run = await ended(db, broadcast, run.id)
    assert run.status is RunStatus.FAILED
    assert run.message == (
        f"{settings.run_root} is not a directory, so that files of runs are not safe there. "
        "Remove it, or set DAOS_RUN_DIR."
    )


async def test_processes_and_files_of_a_killed_server_are_gone_before_runs_begin(
    db: Database, settings: WorkerSettings, playbooks: Path
) -> None:
    left = settings.run_root / "left"
    settings.run_root.mkdir(mode=0o700)
    left.mkdir()
    (left / "delivery").touch()
    environment = {processes.COOKIE: f"{settings.cookie}/{uuid4()}"}
    orphan = await asyncio.create_subprocess_exec("/bin/sleep", "300", env=environment)
    run = await queued_run(db)
    async with serving(db, settings) as (_, broadcast):
        await ended(db, broadcast, run.id)
        assert not left.exists()
        assert await orphan.wait() < 0


async def test_a_secret_that_cannot_be_decrypted_ends_the_run_without_details(
    db: Database, settings: WorkerSettings, playbooks: Path, caplog: pytest.LogCaptureFixture
) -> None:
    host = await factories.host(db, transport=HostTransport.LOCAL, address=None)
    run = await factories.run(db, await factories.deployment(db, on=host, secrets={"PASSWORD": "hunter2"}))
    async with db.write() as session:
        await session.execute(text("UPDATE variables SET ciphertext = 'gone:x'"))
    async with serving(db, settings) as (_, broadcast):
        end = await ended(db, broadcast, run.id)
    assert end.reason is FailureReason.INTERRUPTED
    assert end.message is not None
    error_id = end.message.rpartition(" ")[2].rstrip(".")
    assert error_id in caplog.text
    assert "UnknownKey" in caplog.text


async def test_a_missing_ssh_key_ends_the_run_before_ansible_starts(
    db: Database, settings: WorkerSettings, playbooks: Path
) -> None:
    (playbooks / "deploy.yml").write_text("would be Ansible's error")
    host = await factories.host(db, ssh_key_path="/nonexistent/key")
    run = await factories.run(db, await factories.deployment(db, on=host))
    async with serving(db, settings) as (_, broadcast):
        end = await ended(db, broadcast, run.id)
    assert end.reason is FailureReason.SSH_KEY_NOT_FOUND
    assert not settings.run_root.exists()


@pytest.mark.parametrize("cut_off", [False, True])
async def test_a_host_without_a_key_is_not_talked_to_where_the_policy_is_strict(
    db: Database, settings: WorkerSettings, playbooks: Path, cut_off: bool
) -> None:
    run = await queued_run(db, on=await factories.host(db, address="127.0.0.1"))
    worker = Worker(db, Broadcast(), replace(settings, accept_new=False))
    if cut_off:  # a server that was less strict has died
        async with db.write() as session:
            assert await status.claim(session, run.id, "another") is not None
        await worker.recover(run.id, TENURE)
    else:
        await worker.play(run.id, TENURE)
    async with db.read() as session:
        end = await session.get_one(Run, run.id)
    assert end.reason is (FailureReason.INTERRUPTED if cut_off else FailureReason.HOST_KEY_UNKNOWN)
    assert not settings.run_root.exists()  # nothing was played
