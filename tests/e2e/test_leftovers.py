"""Nothing of a run stays on the server but its rows."""

import asyncio
import contextlib
import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from db.phase import Phase
from tests.conftest import MakeSshd
from tests.e2e.conftest import QUICK, Connect, NewProject
from tests.support.client import ONCE, SLEEPER, UNDECIDED, Client, service
from tests.support.docker import Docker
from tests.support.remains import Place, command
from tests.support.server import Server, at_work, wait_until
from tests.support.sshd import SshServer
from tests.support.turmoil import Turmoil


@pytest.fixture
def secluded(tmp_path: Path) -> Iterator[Server]:
    """A server with a home and a place for temporary files of its own."""
    (tmp_path / "home").mkdir()
    (tmp_path / "tmp").mkdir()
    own = {"HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path / "tmp")}
    server = Server(tmp_path, {**QUICK, **own})
    server.start()
    yield server
    server.close()


async def test_runs_leave_no_files(
    secluded: Server, connect: Connect, sshd: SshServer, new_project: NewProject, tmp_path: Path
) -> None:
    client = connect(secluded)
    secluded.wait_until_warm()
    hosts = [await client.local_host(), await client.ssh_host(sshd)]
    before = _files(tmp_path) | _files(Path("/tmp"), "ansible*")
    names = []
    for host in hosts:
        for services in ({"web": SLEEPER}, {"web": service("false")}):
            names.append(new_project())
            deployment = await client.deployment(host, await client.package(services), names[-1])
            await client.play(deployment)
        run_id = await client.start(deployment)
        await client.phase(run_id, Phase.PREPARE)
        await client.cancel(run_id)
        await client.end_of(run_id)
    after = _files(tmp_path) | _files(Path("/tmp"), "ansible*")
    # On a LOCAL host the projects are in the home of the server's own user.
    assert {path for path in after - before if ".daos" not in path.parts} == set()
    assert list(secluded.run_root.iterdir()) == []
    assert secluded.processes() == {}
    assert [at_work(name) for name in names] == [{}] * 4
    secluded.stop()
    assert not secluded.run_root.exists()


async def test_many_runs_leave_nothing_though_some_are_canceled_and_the_warm_process_is_killed(
    tmp_path: Path, docker: Docker, connect: Connect, make_sshd: MakeSshd, new_project: NewProject
) -> None:
    (tmp_path / "tmp").mkdir()
    at_once = {"DAOS_MAX_RUNS_PER_HOST": "8", "TMPDIR": str(tmp_path / "tmp")}
    server, sshd = Server(tmp_path, {**QUICK, **at_once}), make_sshd()
    with contextlib.closing(server):
        server.start()
        client = connect(server)
        host, package = await client.ssh_host(sshd), await client.package({"web": SLEEPER})
        deployments = {name: await client.deployment(host, package, name) for name in [new_project() for _ in range(8)]}
        place = Place(server, sshd, list(deployments), [tmp_path / "tmp"])
        server.wait_until_warm()
        for _ in range(2):  # meets the host's key, and opens a connection that stays
            await asyncio.gather(*(client.play(deployment) for deployment in deployments.values()))
        before = place.remains()
        turmoil = Turmoil(place, client, docker, deployments, Random())
        await turmoil.play(36, 6, 2)
        assert turmoil.wrong == []
        await client.close()
        assert place.left(before, 60) == Counter()


async def test_a_run_leaves_no_open_file_and_no_process(
    server: Server, client: Client, sshd: SshServer, project: str
) -> None:
    server.wait_until_warm()
    deployment = await client.deployment(await client.ssh_host(sshd), await client.package({"once": ONCE}), project)
    await client.play(deployment)
    before, children = _open_files(server.pid), _children(server.pid)
    for _ in range(2):
        await client.play(deployment)
    wait_until(lambda: _open_files(server.pid) <= before, f"no more than {before} open files")
    assert _children(server.pid) == children
    assert sshd.processes() == []


def _open_files(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def _files(root: Path, pattern: str = "**/*") -> set[Path]:
    return {path for path in root.glob(pattern) if not path.name.startswith(("daos.db-", "server."))}


def _children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


async def test_a_killed_play_leaves_no_connection_to_its_host(
    client: Client, server: Server, sshd: SshServer, project: str
) -> None:
    package = await client.package({"web": UNDECIDED})
    run_id = await client.start(await client.deployment(await client.ssh_host(sshd), package, project))
    await client.phase(run_id, Phase.VERIFY)
    for pid in server.processes(run_id):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert (await client.end_of(run_id))["reason"] == "INTERRUPTED"
    own = f"ssh: {server.run_root}/"  # those that are kept for other runs are elsewhere
    assert [line for line in map(command, Place(server, sshd, [], []).processes()) if line.startswith(own)] == []
