"""A server that is killed or stopped at any moment, and started again on the same data directory."""

import asyncio
import fcntl
import os
import pwd
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from db.phase import Phase
from tests.e2e.conftest import ALONE, QUICK, Connect, MakeServer, NewProject, projects
from tests.support.client import NEVER_UP, ONCE, PATIENCE, SLEEPER, UNDECIDED, Client, Json, make_ill, make_well
from tests.support.docker import Docker
from tests.support.server import Server, at_work, wait_until
from tests.support.sshd import SshServer

RECOVERY = 30.0  # seconds that the server has to find out how a run ended


@dataclass(frozen=True)
class Moment:
    """What a run is doing when the server is killed, what its containers do then, and what is to be told afterwards."""

    phase: Phase
    services: Json
    status: str = "FAILED"
    reason: str | None = "INTERRUPTED"
    then: Callable[[Docker, str], None] | None = None


MOMENTS = {
    "pull": Moment(Phase.PULL, {"web": {**SLEEPER, "image": "REGISTRY/slow:1"}}),
    "up": Moment(Phase.UP, NEVER_UP),
    "verify-well": Moment(Phase.VERIFY, {"web": UNDECIDED}, "SUCCESS", None, then=make_well),
    "verify-ill": Moment(Phase.VERIFY, {"web": UNDECIDED}, "FAILED", "UNHEALTHY", then=make_ill),
    "verify-undecided": Moment(Phase.VERIFY, {"web": UNDECIDED}),
    # The last one, for it waits for a lock, and not for long.
    "prepare": Moment(Phase.PREPARE, {"web": SLEEPER}),
}
PLACES = [("LOCAL", "up"), ("LOCAL", "verify-well"), *(("SSH", name) for name in MOMENTS)]


@dataclass(frozen=True)
class Aftermath:
    """What was told of each run, with its log, and what was found at work when the last one had ended."""

    told: dict[tuple[str, str], tuple[Json, str]]
    left: list[Any]


@pytest.fixture(scope="module")
async def aftermath(
    tmp_path_factory: pytest.TempPathFactory, docker: Docker, sshd: SshServer, registry: str
) -> AsyncIterator[Aftermath]:
    """A server that was killed while it played a run in each of PLACES, and started again."""
    server = Server(tmp_path_factory.mktemp("server"), {**QUICK, "DAOS_MAX_RUNS_PER_HOST": "8"})
    server.start()
    client = Client(server)
    try:
        with projects(docker) as new_project:
            server.wait_until_warm()
            names = {place: new_project() for place in PLACES}
            hosts = {"LOCAL": await client.local_host(), "SSH": await client.ssh_host(sshd)}
            runs: dict[tuple[str, str], str] = {}
            with _locked(names["SSH", "prepare"]):
                for place, project in names.items():
                    transport, moment = place
                    package = await client.package(_services(MOMENTS[moment], registry))
                    if moment == "prepare":
                        await asyncio.gather(*(client.phase(runs[each], MOMENTS[each[1]].phase) for each in runs))
                    runs[place] = await client.start(await client.deployment(hosts[transport], package, project))
                await client.phase(runs["SSH", "prepare"], Phase.PREPARE)
                server.kill()
            for (_, moment), project in names.items():
                if (then := MOMENTS[moment].then) is not None:
                    then(docker, project)
            server.start()
            await asyncio.gather(*(client.end_of(run_id) for run_id in runs.values()))
            left = [
                server.processes(),
                sshd.processes(),
                *(at_work(project) for project in names.values()),
                list(server.run_root.iterdir()),
            ]
            told = {place: (await client.run(run_id), await client.words(run_id)) for place, run_id in runs.items()}
            yield Aftermath(told, [each for each in left if each])
    finally:
        await client.close()
        server.close()


def _services(moment: Moment, registry: str) -> Json:
    return {
        name: {**service, "image": service["image"].replace("REGISTRY", registry)}
        for name, service in moment.services.items()
    }


@contextmanager
def _locked(project: str) -> Iterator[None]:
    """Hold the project's lock on this machine, so that no run gets any further than Prepare."""
    state = Path(pwd.getpwuid(os.getuid()).pw_dir, ".daos", "state", project)
    state.mkdir(mode=0o700, parents=True)
    with (state / "lock").open("w") as file:
        lock = fcntl.fcntl(file, fcntl.F_DUPFD_CLOEXEC, 100)  # what has it as a low one is the run's
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


@pytest.mark.parametrize("place", PLACES, ids="-".join)
async def test_after_a_kill_the_deployment_says_what_the_host_says(
    aftermath: Aftermath, place: tuple[str, str]
) -> None:
    run, log = aftermath.told[place]
    expected = MOMENTS[place[1]]
    assert (run["status"], run["reason"]) == (expected.status, expected.reason), f"{run}\n{log}"
    assert run["deployment"]["status"] == expected.status
    assert run["message"]


async def test_after_a_kill_nothing_is_left_at_work(aftermath: Aftermath) -> None:
    assert aftermath.left == []


@pytest.fixture
def killable(make_server: MakeServer) -> Server:
    return make_server()


@ALONE
async def test_after_a_kill_an_unreachable_host_leaves_the_run_interrupted(
    killable: Server, connect: Connect, make_sshd: Callable[[], SshServer], project: str
) -> None:
    client = connect(killable)
    sshd = make_sshd()
    host = await client.ssh_host(sshd)
    run_id = await client.start(await client.deployment(host, await client.package({"web": UNDECIDED}), project))
    await client.phase(run_id, Phase.VERIFY)
    killable.kill()
    sshd.stop()
    killable.start()
    run = await client.end_of(run_id, RECOVERY)
    assert (run["status"], run["reason"]) == ("FAILED", "INTERRUPTED"), run


@ALONE
async def test_queued_runs_are_played_after_a_kill(
    make_server: MakeServer, connect: Connect, new_project: NewProject
) -> None:
    server = make_server(max_runs=1)
    client = connect(server)
    host = await client.local_host()
    slow, quick = await client.package(NEVER_UP), await client.package({"once": ONCE})
    first = await client.start(await client.deployment(host, slow, new_project()))
    queued = [await client.start(await client.deployment(host, quick, new_project())) for _ in range(2)]
    await client.phase(first, Phase.UP)
    server.kill()
    server.start()
    assert (await client.end_of(first))["status"] == "FAILED"
    assert [(await client.end_of(each))["status"] for each in queued] == ["SUCCESS", "SUCCESS"]


async def test_a_cancel_before_a_kill_counts(killable: Server, connect: Connect, sshd: SshServer, project: str) -> None:
    client = connect(killable)
    host = await client.ssh_host(sshd)
    run_id = await client.start(await client.deployment(host, await client.package({"web": UNDECIDED}), project))
    await client.phase(run_id, Phase.VERIFY)
    await client.cancel(run_id)
    killable.kill()
    killable.start()
    run = await client.end_of(run_id, RECOVERY)
    assert (run["status"], run["reason"]) == ("CANCELED", "CANCELED"), run


@ALONE
async def test_a_polite_stop_interrupts_what_does_not_end_in_time(
    make_server: MakeServer, connect: Connect, sshd: SshServer, new_project: NewProject
) -> None:
    server = make_server(shutdown_grace=0.5)
    client = connect(server)
    package = await client.package(NEVER_UP)
    names, runs = [new_project(), new_project()], []
    for name, host in zip(names, (await client.local_host(), await client.ssh_host(sshd)), strict=True):
        runs.append(await client.start(await client.deployment(host, package, name)))
    for run_id in runs:
        await client.phase(run_id, Phase.UP)
    began = time.monotonic()
    status = server.stop()
    took = time.monotonic() - began
    left = server.processes(), sshd.processes(), *(at_work(name) for name in names)
    server.start()
    for run in [await client.run(run_id) for run_id in runs]:
        assert (run["status"], run["reason"]) == ("FAILED", "INTERRUPTED"), run
        assert "stopped" in run["message"]
    assert status == 0
    assert left == ({}, [], {}, {})
    assert took < RECOVERY, f"the stop took {took:.1f} s"
    assert "Traceback" not in server.log


@ALONE
async def test_a_polite_stop_lets_runs_end_within_the_grace_time(
    make_server: MakeServer, connect: Connect, new_project: NewProject, docker: Docker
) -> None:
    server = make_server(max_runs=1, shutdown_grace=PATIENCE)
    client = connect(server)
    host = await client.local_host()
    slow, quick = await client.package({"web": UNDECIDED}), await client.package({"once": ONCE})
    project = new_project()
    playing = await client.start(await client.deployment(host, slow, project))
    queued = await client.start(await client.deployment(host, quick, new_project()))
    await client.phase(playing, Phase.VERIFY)
    stopping = asyncio.create_task(asyncio.to_thread(server.stop, PATIENCE))
    await asyncio.to_thread(wait_until, lambda: "waiting up to" in server.log, "the server is stopping")
    make_well(docker, project)
    assert await stopping == 0
    assert not server.run_root.exists()
    server.start()
    assert (await client.run(playing))["status"] == "SUCCESS"
    assert (await client.end_of(queued))["status"] == "SUCCESS"
    assert "Traceback" not in server.log


async def test_a_stop_does_not_wait_for_subscribers(make_server: MakeServer, connect: Connect, project: str) -> None:
    server = make_server()
    client = connect(server)
    host, package = await client.local_host(), await client.package({"once": ONCE})
    deployment = await client.deployment(host, package, project)
    document = "subscription($id: ID!) { deploymentStatus(id: $id) { status } }"
    async with client.subscribe(document, id=deployment) as events:
        assert (await anext(events))["deploymentStatus"]["status"] == "PENDING"
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < RECOVERY


async def test_a_kill_at_any_moment_is_survived(
    killable: Server, connect: Connect, project: str, docker: Docker
) -> None:
    client = connect(killable)
    deployment = await client.deployment(await client.local_host(), await client.package({"web": SLEEPER}), project)
    for moment in (0.0, 0.8):
        run_id = await client.start(deployment)
        await asyncio.sleep(moment)  # no event to wait for: it is to come at any time
        killable.kill()
        killable.start()
        run = await client.end_of(run_id, RECOVERY)
        assert (run["status"], run["reason"]) in {("SUCCESS", None), ("FAILED", "INTERRUPTED")}, run
        if run["status"] == "SUCCESS":
            assert len(docker.containers(project)) == 1
    assert (await client.play(deployment))["status"] == "SUCCESS"
