"""Nodes over one PostgreSQL: one that answers, two that play, and what happens to a run whose worker goes away."""

import asyncio
import os
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psycopg
import pytest

from db.phase import Phase
from tests.e2e.conftest import QUICK, Connect, NewProject
from tests.support.client import ONCE, UNDECIDED, Client, make_well
from tests.support.docker import Docker
from tests.support.server import Server, at_work, wait_until
from tests.support.sshd import SshServer

LEASE = 3.0
TAKEN = 30.0  # seconds until a lost worker's run is taken over or closed
SETTINGS = {**QUICK, "DAOS_WARM": "false", "DAOS_LEASE": str(LEASE), "DAOS_SHUTDOWN_GRACE": "1"}


@dataclass
class Cluster:
    """A node that answers and plays nothing, and workers, which are started by hand."""

    api: Server
    workers: list[Server]

    def start(self, number: int) -> Server:
        """Start one more of the workers."""
        worker = self.workers[number]
        # One keyring for all nodes.
        worker.data_dir.mkdir(parents=True, exist_ok=True)
        shutil.copy(self.api.data_dir / "secret-key", worker.data_dir)
        worker.start()
        return worker


@pytest.fixture
def cluster(postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    settings = {**SETTINGS, "DAOS_DATABASE_URL": postgres_url}
    directory: Path = tmp_path_factory.mktemp("cluster")
    api = Server(directory / "api", {**settings, "DAOS_PLAY": "false"})
    workers = [Server(directory / f"worker-{number}", settings, role="worker") for number in range(2)]
    api.start()
    yield Cluster(api, workers)
    for server in (*workers, api):
        server.close()


async def verifying(client: Client, project: str) -> str:
    """The id of a run that watches containers which are not well yet."""
    package = await client.package({"web": UNDECIDED})
    run_id = await client.start(await client.deployment(await client.local_host(), package, project))
    await client.phase(run_id, Phase.VERIFY)
    return run_id


async def claims(client: Client, run_id: str) -> int:
    """How often the run was played from its beginning."""
    return sum(entry["message"].endswith(" begins.") for entry in await client.log(run_id))


async def test_a_worker_plays_and_the_other_node_shows_it(
    cluster: Cluster, connect: Connect, project: str, docker: Docker
) -> None:
    cluster.start(0)
    client = connect(cluster.api)
    deployment = await client.deployment(await client.local_host(), await client.package({"once": ONCE}), project)
    document = "subscription($id: ID!) { deploymentStatus(id: $id) { status } }"
    async with client.subscribe(document, id=deployment) as events:
        seen = [(await anext(events))["deploymentStatus"]["status"]]
        beginning = time.monotonic()
        run = await client.play(deployment)
        seen += [(await anext(events))["deploymentStatus"]["status"] for _ in range(2)]
        assert time.monotonic() - beginning < 9.0  # it was told, and did not look after ten seconds
    assert run["status"] == "SUCCESS"
    assert seen == ["PENDING", "RUNNING", "SUCCESS"]


async def test_a_worker_tells_how_it_is(cluster: Cluster, connect: Connect, project: str) -> None:
    worker = cluster.start(0)
    client = connect(cluster.api)
    package = await client.package({"once": ONCE})
    await client.play(await client.deployment(await client.local_host(), package, project))
    async with httpx.AsyncClient() as http:
        assert (await http.get(f"{worker.url}/readyz")).text == "ready\n"
        of_worker, of_api = [(await http.get(f"{node.url}/metrics")).text for node in (worker, cluster.api)]
    assert "daos_start_latency_seconds_count 1.0" in of_worker
    assert "daos_start_latency_seconds_count 0.0" in of_api
    assert 'daos_engine_lag_seconds{part="queue"}' in of_worker
    assert 'daos_engine_lag_seconds{part="queue"}' not in of_api
    for text in (of_worker, of_api):
        assert 'daos_runs{status="success"} 1.0' in text
        assert "daos_capacity_runs 8.0" in text
        assert 'daos_engine_lag_seconds{part="news"}' in text


async def test_a_killed_workers_run_goes_on_at_another(
    cluster: Cluster, connect: Connect, project: str, docker: Docker
) -> None:
    first = cluster.start(0)
    client = connect(cluster.api)
    run_id = await verifying(client, project)
    cluster.start(1)
    first.kill()
    make_well(docker, project)
    run = await client.end_of(run_id, TAKEN)
    assert (run["status"], run["reason"]) == ("SUCCESS", None), await client.words(run_id)
    assert "The worker of this run was lost." in await client.words(run_id)
    assert not at_work(project)


async def test_a_killed_worker_that_is_started_again_goes_on_at_once(
    cluster: Cluster, connect: Connect, project: str, docker: Docker
) -> None:
    worker = cluster.start(0)
    client = connect(cluster.api)
    run_id = await verifying(client, project)
    worker.kill()
    make_well(docker, project)
    worker.start()
    run = await client.end_of(run_id, TAKEN)
    assert (run["status"], run["reason"]) == ("SUCCESS", None), await client.words(run_id)


async def test_a_frozen_worker_plays_nothing_beside_its_successor(
    cluster: Cluster, connect: Connect, project: str, docker: Docker
) -> None:
    first = cluster.start(0)
    client = connect(cluster.api)
    run_id = await verifying(client, project)
    os.kill(first.pid, signal.SIGSTOP)
    try:
        # Its play ends by itself, before anybody else may begin.
        await asyncio.to_thread(wait_until, lambda: not first.processes(run_id), "the play has ended", 4 * LEASE)
        assert (await client.run(run_id))["status"] == "RUNNING"
        second = cluster.start(1)
        await asyncio.to_thread(wait_until, lambda: second.processes(run_id), "another plays it", TAKEN)
    finally:
        os.kill(first.pid, signal.SIGCONT)
    make_well(docker, project)
    run = await client.end_of(run_id, TAKEN)
    assert (run["status"], run["reason"]) == ("SUCCESS", None), await client.words(run_id)
    log = await client.log(run_id)
    assert [entry["sequence"] for entry in log] == list(range(1, len(log) + 1))
    assert not first.processes(run_id)


async def test_a_stopped_worker_hands_its_runs_over(
    cluster: Cluster, connect: Connect, project: str, docker: Docker
) -> None:
    first = cluster.start(0)
    client = connect(cluster.api)
    run_id = await verifying(client, project)
    cluster.start(1)
    assert await asyncio.to_thread(first.stop) == 0
    make_well(docker, project)
    run = await client.end_of(run_id, TAKEN)
    assert (run["status"], run["reason"]) == ("SUCCESS", None), await client.words(run_id)
    assert "The run is queued again, for any worker." in await client.words(run_id)


async def test_a_run_is_canceled_within_a_second_or_two_from_another_node(
    cluster: Cluster, connect: Connect, project: str
) -> None:
    cluster.start(0)
    client = connect(cluster.api)
    run_id = await verifying(client, project)
    beginning = time.monotonic()
    await client.cancel(run_id)
    assert (await client.end_of(run_id))["status"] == "CANCELED"
    assert time.monotonic() - beginning < 9.0  # it was told, and did not look after ten seconds


async def test_a_database_that_drops_its_connections_ends_no_run_that_meets_its_host(
    cluster: Cluster, connect: Connect, project: str, postgres_url: str, sshd: SshServer
) -> None:
    cluster.start(0)
    client = connect(cluster.api)
    deployment = await client.deployment(await client.ssh_host(sshd), await client.package({"once": ONCE}), project)
    with psycopg.connect(postgres_url) as other:
        other.execute("SELECT id FROM hosts FOR NO KEY UPDATE")  # whoever pins the host's key waits
        run_id = await client.start(deployment)
        waiting = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        await asyncio.to_thread(wait_until, lambda: other.execute(waiting).fetchall(), "the host is met", TAKEN)
        other.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
    run = await client.end_of(run_id)
    assert (run["status"], run["reason"]) == ("SUCCESS", None), await client.words(run_id)


async def test_two_servers_share_the_runs_of_a_database(
    cluster: Cluster,
    connect: Connect,
    new_project: NewProject,
    postgres_url: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    other = Server(tmp_path_factory.mktemp("other"), {**SETTINGS, "DAOS_DATABASE_URL": postgres_url})
    cluster.workers.append(other)  # is closed with them
    cluster.start(2)
    client = connect(cluster.api)
    host, package = await client.local_host(), await client.package({"once": ONCE})
    runs = [await client.start(await client.deployment(host, package, new_project())) for _ in range(4)]
    assert {(await client.end_of(run_id))["status"] for run_id in runs} == {"SUCCESS"}
