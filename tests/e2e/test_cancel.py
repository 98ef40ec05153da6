"""Cancelling: what a run has started is gone, here and on the host, when it says CANCELED."""

import asyncio
import time

import pytest

from db.phase import Phase
from tests.e2e.conftest import Connect, MakeServer, NewProject
from tests.support.client import NEVER_UP, ONCE, SLEEPER, UNDECIDED, Client, Json
from tests.support.docker import Docker
from tests.support.server import Server, at_work, wait_until
from tests.support.sshd import SshServer

LIMIT = 20.0  # seconds; it takes about one, but not on a machine that is busy with other things


@pytest.mark.parametrize("phase", [Phase.PULL, Phase.UP, Phase.VERIFY])
async def test_nothing_is_at_work_when_a_run_says_canceled(
    client: Client, server: Server, host: str, sshd: SshServer, project: str, registry: str, phase: Phase
) -> None:
    services = {
        Phase.PULL: {"web": {**SLEEPER, "image": f"{registry}/slow:1"}},
        Phase.UP: NEVER_UP,
        Phase.VERIFY: {"web": UNDECIDED},
    }[phase]
    deployment = await client.deployment(host, await client.package(services), project)
    run_id = await client.start(deployment)
    await client.phase(run_id, phase)
    await asyncio.to_thread(wait_until, lambda: at_work(project), f"{phase.label} is at work")
    asked = time.monotonic()
    await client.cancel(run_id)
    run = await client.end_of(run_id)
    left = server.processes(run_id), sshd.processes(), at_work(project)
    took = time.monotonic() - asked

    assert (run["status"], run["reason"]) == ("CANCELED", "CANCELED"), run
    assert run["deployment"]["status"] == "FAILED"
    assert run["message"]
    assert left == ({}, [], {})
    assert took < LIMIT, f"the cancel took {took:.1f} s"
    assert list(server.run_root.iterdir()) == []


async def test_a_deployment_runs_again_after_a_cancel(
    client: Client, sshd: SshServer, project: str, docker: Docker
) -> None:
    package = await client.package({"web": UNDECIDED})
    deployment = await client.deployment(await client.ssh_host(sshd), package, project)
    run_id = await client.start(deployment)
    await client.phase(run_id, Phase.VERIFY)
    await client.cancel(run_id)
    await client.end_of(run_id)
    assert (await client.play(deployment, "DOWN"))["status"] == "SUCCESS"
    assert docker.containers(project) == []


async def test_a_cancel_at_any_moment_ends_the_run(client: Client, host: str, project: str) -> None:
    deployment = await client.deployment(host, await client.package({"web": UNDECIDED}), project)
    for _ in range(2):
        run_id = await client.start(deployment)
        await client.cancel(run_id)
        run = await client.end_of(run_id)
        assert (run["status"], run["reason"]) == ("CANCELED", "CANCELED"), run
    assert at_work(project) == {}


async def test_a_queued_run_is_canceled_at_once(
    make_server: MakeServer, connect: Connect, new_project: NewProject
) -> None:
    client = connect(make_server(max_runs=1))
    host, package = await client.local_host(), await client.package({"web": UNDECIDED})
    first = await client.start(await client.deployment(host, package, new_project()))
    await client.phase(first, Phase.PREPARE)
    deployment = await client.deployment(host, package, new_project())
    queued = await client.start(deployment)
    run = await client.cancel(queued)
    assert (run["status"], run["reason"], run["startedAt"]) == ("CANCELED", "CANCELED", None)
    assert await client.status(deployment) == "PENDING"
    await client.cancel(first)
    assert (await client.end_of(first))["status"] == "CANCELED"


async def test_a_run_that_has_ended_stays_as_it_is(client: Client, project: str) -> None:
    deployment = await client.deployment(await client.local_host(), await client.package({"once": ONCE}), project)
    run = await client.play(deployment)
    assert _without_deployment(await client.cancel(run["id"])) == _without_deployment(run)
    assert await client.status(deployment) == "SUCCESS"


def _without_deployment(run: Json) -> Json:
    return {name: value for name, value in run.items() if name != "deployment"}
