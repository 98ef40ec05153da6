"""Several engines over one PostgreSQL: each run is one worker's at a time, and none is left.

As in test_engine, Ansible really plays, on a playbook folder that does nothing.
"""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest
import yaml
from sqlalchemy import delete, select, text, update

from db import models, status
from db.broadcast import Broadcast
from db.database import Database
from db.models import FailureReason, LogEntry, RunAction, RunStatus, now
from db.phase import Phase
from resolvers import runs
from resolvers.runs import Turn
from runner.engine.distributed import DistributedEngine
from runner.engine.jobs import Queue
from runner.store import Capacity
from runner.worker import Worker, WorkerSettings
from tests import factories
from tests.runner.engines import SLEEP, ended, until_playing
from tests.runner.plays import phase, write_reporting

LEASE = 2.0


class Node:
    """An engine, with a worker unless `max_runs` is 0."""

    def __init__(
        self, db: Database, broadcast: Broadcast, settings: WorkerSettings, max_runs: int, lease: float = LEASE
    ) -> None:
        self.id = uuid4().hex
        self.settings = replace(
            settings, run_root=settings.run_root / self.id, cookie=f"{settings.cookie}-{self.id[:8]}"
        )
        worker = Worker(db, broadcast, self.settings) if max_runs else None
        self.engine = DistributedEngine(
            db, broadcast, worker, node=self.id, capacity=Capacity(max_runs, 2), lease=lease
        )

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["Node"]:
        async with asyncio.TaskGroup() as group:
            group.create_task(self.engine.serve())
            try:
                yield self
            finally:
                await self.engine.drain(grace=0.0)

    async def ready(self) -> None:
        async with asyncio.timeout(10):
            while not self.engine.ready:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


class Cluster:
    """Nodes of one database."""

    def __init__(self, db: Database, settings: WorkerSettings) -> None:
        self.db = db
        self.broadcast = Broadcast()
        self.api = Node(db, self.broadcast, settings, 0)
        self._settings = settings

    def worker(self, max_runs: int = 4, lease: float = LEASE) -> Node:
        return Node(self.db, self.broadcast, self._settings, max_runs, lease)

    async def start(self, *of: models.Deployment, turn: Turn | None = None) -> list[UUID]:
        """Runs of the deployments, or of a new one, queued at a node that plays none."""
        host = await factories.host(self.db, transport=models.HostTransport.LOCAL, address=None)
        deployments = of or [await factories.deployment(self.db, on=host)]
        ids = [str(deployment.id) for deployment in deployments]
        started = await runs.start(self.db, self.api.engine, self.broadcast, ids, RunAction.UP, turn=turn)
        return [run.id for _, run in started]

    async def ended(self, run_id: UUID) -> models.Run:
        return await ended(self.db, self.broadcast, run_id)

    async def log(self, run_id: UUID) -> list[str]:
        async with self.db.read() as session:
            of_it = select(LogEntry.message).where(LogEntry.run_id == run_id).order_by(LogEntry.sequence)
            return list(await session.scalars(of_it))

    async def run(self, run_id: UUID) -> models.Run:
        async with self.db.read() as session:
            return await session.get_one(models.Run, run_id)

    async def until(self, run_id: UUID, *, epoch: int) -> None:
        """Wait until the run was claimed so many times."""
        async with asyncio.timeout(30):
            while (await self.run(run_id)).epoch < epoch:  # noqa: ASYNC110 - nobody tells of a claim
                await asyncio.sleep(0.02)


@pytest.fixture
def cluster(postgresql_db: Database, settings: WorkerSettings, playbooks: Path) -> Cluster:
    return Cluster(postgresql_db, settings)


async def test_a_worker_plays_what_another_node_has_accepted(cluster: Cluster) -> None:
    async with cluster.worker().serving():
        [run_id] = await cluster.start()
        run = await cluster.ended(run_id)
    assert (run.status, run.epoch) == (RunStatus.FAILED, 1)  # the playbook says nothing of the host
    assert run.reason is FailureReason.INTERRUPTED


async def test_a_job_ends_with_its_run(cluster: Cluster) -> None:
    async with cluster.worker().serving():
        [run_id] = await cluster.start()
        await cluster.ended(run_id)
    async with cluster.db.read() as session:
        assert await session.scalar(text("SELECT count(*) FROM procrastinate_jobs")) == 0


async def test_a_run_and_its_job_are_queued_together_or_not_at_all(cluster: Cluster) -> None:
    deployment = await factories.deployment(cluster.db)
    async with cluster.db.write() as session:
        run = await status.start(session, deployment.id, RunAction.UP)
        assert run is not None
        await cluster.api.engine.enqueue(session, run)
        await session.rollback()
    async with cluster.db.read() as session:
        assert await session.scalar(text("SELECT count(*) FROM procrastinate_jobs")) == 0


async def test_many_workers_play_each_run_once(cluster: Cluster) -> None:
    deployments = [await factories.deployment(cluster.db, on=await _host(cluster)) for _ in range(12)]
    # A busy machine must not cost one of them its lease.
    workers = [cluster.worker(lease=60) for _ in range(3)]
    async with workers[0].serving(), workers[1].serving(), workers[2].serving():
        played = [await cluster.ended(run_id) for run_id in await cluster.start(*deployments)]
    assert {run.epoch for run in played} == {1}
    assert Counter([message for run in played for message in await cluster.log(run.id)])["Run 1 begins."] == 12


async def test_no_more_runs_of_a_host_are_played_than_allowed(cluster: Cluster, playbooks: Path) -> None:
    (playbooks / "deploy.yml").write_text(SLEEP)
    host = await _host(cluster)
    deployments = [await factories.deployment(cluster.db, on=host) for _ in range(4)]
    async with cluster.worker().serving(), cluster.worker().serving():
        run_ids = await cluster.start(*deployments)
        for run_id in run_ids[:2]:
            await cluster.until(run_id, epoch=1)
        await asyncio.sleep(1)
        statuses = Counter([(await cluster.run(run_id)).status for run_id in run_ids])
    assert statuses == {RunStatus.RUNNING: 2, RunStatus.QUEUED: 2}


async def test_a_stopped_worker_hands_its_runs_over(cluster: Cluster, playbooks: Path) -> None:
    (playbooks / "deploy.yml").write_text(SLEEP)
    async with cluster.worker().serving() as first:
        [run_id] = await cluster.start()
        await until_playing(first.settings.cookie)
    assert (await cluster.run(run_id)).status is RunStatus.QUEUED
    async with cluster.worker().serving() as second:
        await until_playing(second.settings.cookie)
        assert (await cluster.run(run_id)).epoch == 2
    assert "The run is queued again, for any worker." in await cluster.log(run_id)


async def test_a_lost_workers_run_is_taken_over(cluster: Cluster) -> None:
    deployment = await factories.deployment(cluster.db, on=await _host(cluster))
    async with cluster.db.write() as session:
        session.add(_worker_row("lost"))
        run = await status.start(session, deployment.id, RunAction.UP)
        assert run is not None
        assert await status.claim(session, run.id, "lost", LEASE) is not None
    async with cluster.worker().serving():
        await asyncio.sleep(LEASE)  # it is not taken while its worker may be alive
        assert (await cluster.run(run.id)).epoch == 1
        played = await cluster.ended(run.id)
    # Taken over, asked after at the host, which knows nothing, queued, and played.
    assert played.epoch == 3
    log = await cluster.log(run.id)
    assert "The worker of this run was lost." in log
    assert "The run is queued again, for any worker." in log


async def test_a_claim_that_its_worker_does_not_know_of_is_taken_up(cluster: Cluster) -> None:
    deployment = await factories.deployment(cluster.db, on=await _host(cluster))
    async with cluster.worker().serving() as node:
        await node.ready()
        async with cluster.db.write() as session:  # as of a commit whose answer was lost
            worker = await session.scalar(select(models.Worker.id))
            run = await status.start(session, deployment.id, RunAction.UP)
            assert run is not None
            assert worker is not None
            assert await status.claim(session, run.id, worker, LEASE) is not None
        played = await cluster.ended(run.id)
    assert played.epoch == 3  # taken, asked after at the host, which knows nothing, and played


async def test_a_worker_that_is_given_up_ends_its_plays_before_another_begins(
    cluster: Cluster, playbooks: Path
) -> None:
    (playbooks / "deploy.yml").write_text(SLEEP)
    async with cluster.worker().serving() as node:
        [run_id] = await cluster.start()
        await until_playing(node.settings.cookie)
        async with cluster.db.write() as session:
            await session.execute(delete(models.Worker))
        await cluster.until(run_id, epoch=2)
        await until_playing(node.settings.cookie)
    assert "The worker has lost the database, and ended the play." in await cluster.log(run_id)


async def test_a_cancel_at_another_node_ends_the_run(cluster: Cluster, playbooks: Path) -> None:
    (playbooks / "deploy.yml").write_text(SLEEP)
    async with cluster.worker().serving() as node:
        [run_id] = await cluster.start()
        await until_playing(node.settings.cookie)
        await runs.cancel(cluster.db, cluster.api.engine, cluster.broadcast, str(run_id))
        assert (await cluster.ended(run_id)).status is RunStatus.CANCELED


async def test_a_run_that_is_canceled_before_it_is_handed_over_is_not_played_again(
    cluster: Cluster, playbooks: Path
) -> None:
    run = await factories.run(cluster.db, to=RunStatus.RUNNING)
    async with cluster.db.write() as session:
        await status.request_cancel(session, run.id)
        assert not await status.hand_back(session, run.id, run.epoch)


async def test_of_a_run_that_is_canceled_while_it_is_handed_over_the_host_is_asked(
    cluster: Cluster, playbooks: Path
) -> None:
    write_reporting(playbooks, "deploy.yml", *phase(Phase.PREPARE))
    with (playbooks / "deploy.yml").open("r+") as playbook:
        plays = [*json.load(playbook), *yaml.safe_load(SLEEP)]
        playbook.seek(0)
        json.dump(plays, playbook)
    async with cluster.worker().serving():
        [run_id] = await cluster.start()
        async with asyncio.timeout(30):
            while not (await cluster.run(run_id)).progress:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.02)
        async with cluster.db.write() as session:
            await status.request_cancel(session, run_id)  # and the worker has not heard of it
    assert (await cluster.run(run_id)).status is RunStatus.RUNNING
    async with cluster.worker().serving():
        run = await cluster.ended(run_id)
    # Held once more, to ask; this playbook has no answer, and so nobody knows how far the run had come.
    assert (run.reason, run.epoch) == (FailureReason.INTERRUPTED, 2)
    assert run.message is not None
    assert run.message.startswith("The run was canceled, and host")


async def test_a_queued_run_without_a_job_gets_one(cluster: Cluster) -> None:
    [run_id] = await cluster.start()
    async with cluster.db.write() as session:
        await session.execute(text("DELETE FROM procrastinate_jobs"))
    async with cluster.worker().serving():
        await cluster.ended(run_id)


async def test_runs_without_a_job_are_looked_for_by_going_through_the_jobs_once(postgresql_db: Database) -> None:
    looking = select(Queue(postgresql_db, 1).needs_repair)
    async with postgresql_db.read() as session:
        connection = await session.connection()
        statement = looking.compile(dialect=connection.dialect, compile_kwargs={"literal_binds": True})
        explained = await connection.exec_driver_sql(f"EXPLAIN {statement}")
        plan = "\n".join(explained.scalars())
    assert "NOT (hashed SubPlan" in plan, plan


async def test_the_capacity_is_that_of_all_living_workers(cluster: Cluster) -> None:
    async with cluster.worker(3).serving() as one, cluster.worker(4).serving() as other:
        await one.ready()
        await other.ready()
        async with cluster.db.write() as session:
            session.add(_worker_row("lost"))
            await session.flush()
            await session.execute(
                update(models.Worker)
                .where(models.Worker.id == "lost")
                .values(seen_at=status.clock() - timedelta(seconds=60))
            )
            assert await cluster.api.engine.capacity(session) == Capacity(7, 2)


async def test_a_worker_is_ready_while_it_holds_its_lease(cluster: Cluster) -> None:
    assert cluster.api.engine.ready
    assert cluster.api.engine.lag is None
    async with cluster.worker().serving() as node:
        assert not node.engine.ready
        await node.ready()
        assert (node.engine.lag or 0) < LEASE
        async with cluster.db.write() as session:
            await session.execute(delete(models.Worker))
        async with asyncio.timeout(10):
            while node.engine.ready:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.01)
        await node.ready()  # with another one
    assert not node.engine.ready


async def test_who_has_no_lease_claims_nothing(postgresql_db: Database) -> None:
    run = await factories.run(postgresql_db)
    async with postgresql_db.write() as session:
        assert await status.claim(session, run.id, "nobody", LEASE) is None


def _worker_row(worker: str) -> models.Worker:
    return models.Worker(id=worker, node=worker, name=worker, max_runs=1, started_at=now(), seen_at=status.clock())


async def _host(cluster: Cluster) -> models.Host:
    return await factories.host(cluster.db, transport=models.HostTransport.LOCAL, address=None)
