"""A disk that is full while a run is played, and has room again later."""

import errno
import os
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from db.phase import Phase
from tests.e2e.conftest import QUICK, Connect
from tests.e2e.test_tokens import daos
from tests.support.client import UNDECIDED, Refused, make_well
from tests.support.docker import Docker
from tests.support.requirement import require
from tests.support.server import Server, wait_until

FILLING = "filling"


@pytest.fixture
def cramped(tmp_path: Path) -> Iterator[Server]:
    """A server whose data directory is a file system of 16 MiB."""
    server = Server(tmp_path, {**QUICK, "DAOS_WARM": "false"})
    server.data_dir.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m,mode=0700", "tmpfs", str(server.data_dir)]
    mounted = subprocess.run(mount, check=False, capture_output=True, text=True)
    require("tmpfs", mounted.stderr.strip() or None)
    try:
        server.start()
        yield server
    finally:
        (server.data_dir / FILLING).unlink(missing_ok=True)
        server.close()
        subprocess.run(["umount", server.data_dir], check=True)


async def test_a_runs_end_and_log_are_written_when_there_is_room_again(
    cramped: Server, connect: Connect, project: str, docker: Docker
) -> None:
    client = connect(cramped)
    package = await client.package({"web": UNDECIDED})
    run_id = await client.start(await client.deployment(await client.local_host(), package, project))
    await client.phase(run_id, Phase.VERIFY)
    filling = _fill(cramped.data_dir)
    make_well(docker, project)
    wait_until(lambda: f"run {run_id} cannot be written" in cramped.log, "the server misses room", 120)

    with pytest.raises(Refused) as refused:
        await client.local_host()
    assert refused.value.code == "STORAGE_FULL"
    with pytest.raises(RuntimeError, match=r"daos: The server's storage is full, and nothing was changed") as told:
        daos(cramped, "token", "create", "never")
    assert "Traceback" not in str(told.value)
    assert (await client.run(run_id))["status"] == "RUNNING"  # reading goes on
    async with httpx.AsyncClient() as http:
        assert (await http.get(f"{cramped.url}/healthz")).status_code == httpx.codes.OK
        assert (await http.get(f"{cramped.url}/readyz")).text == "not ready: the storage of the database is full\n"

    filling.unlink()
    run = await client.end_of(run_id)
    assert (run["status"], run["reason"]) == ("SUCCESS", None), run
    log = await client.log(run_id)
    assert [entry["sequence"] for entry in log] == list(range(1, len(log) + 1))
    assert log[-1]["message"] == run["message"]
    assert await client.local_host()
    wait_until(lambda: httpx.get(f"{cramped.url}/readyz").text == "ready\n", "the server is ready again")
    assert cramped.stop() == 0


def _fill(directory: Path) -> Path:
    """Fill the file system to its last byte, with the file that is given."""
    with closing(sqlite3.connect(directory / "daos.db")) as database:
        # Or the next changes would find room in the log of the last ones.
        assert database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
    path = directory / FILLING
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        while os.write(descriptor, bytes(4096)):
            pass
    except OSError as error:
        assert error.errno == errno.ENOSPC  # noqa: PT017 - what ends the loop
    finally:
        os.close(descriptor)
    return path
