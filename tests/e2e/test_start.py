"""Starting: what is wrong is one clear line, and an installed daos needs nothing of its environment."""

import asyncio
import contextlib
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from daos import __version__
from daos.http.explorer import is_built
from tests.e2e.conftest import QUICK, Connect, MakeServer, NewProject
from tests.support.client import SLEEPER, UNDECIDED
from tests.support.installation import InstalledDaos
from tests.support.server import Server
from tests.support.sshd import SshServer

PATH = "/usr/local/bin:/usr/bin:/bin"


def refuse(*arguments: str, **environment: str) -> str:
    """The one line that the command says before it ends."""
    ended = subprocess.run(
        [sys.executable, "-m", "daos", *arguments],
        env={"PATH": PATH, **environment},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 1, ended
    lines = [line for line in ended.stderr.splitlines() if line.startswith("daos: ")]
    assert len(lines) == 1, ended.stderr
    assert "Traceback" not in ended.stderr
    return lines[0]


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
        line = refuse("serve", "--port", port, DAOS_DATA_DIR=str(tmp_path / "data"))
        words = f"cannot listen on 127.0.0.1 port {port}: Address already in use; choose another port with --port"
        assert line == f"daos: {words}"


def test_the_start_says_what_is_served_and_how_to_stop_it_and_then_gives_the_link(make_server: MakeServer) -> None:
    server = make_server(maxruns=3)
    assert f"daos {__version__} serving the data directory {server.data_dir}; stop with Ctrl-C" in server.log
    assert (
        "WARNING daos.cli: DAOS_MAXRUNS is not a setting and has no effect; did you mean DAOS_MAX_RUNS?" in server.log
    )
    assert "INFO    uvicorn: Application startup complete." in server.log
    assert "uvicorn.error" not in server.log
    assert server.output.startswith("GraphiQL: http://127.0.0.1:")
    assert ("GraphiQL is not built" in server.log) == (not is_built())
    assert server.stop() == 0


def test_a_command_says_which_data_directory_it_uses(tmp_path: Path) -> None:
    data = tmp_path / "data"

    def say(*arguments: str) -> str:
        command = [sys.executable, "-m", "daos", *arguments]
        environment = {"PATH": PATH, "DAOS_DATA_DIR": str(data)}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stderr

    made = f"daos: created the data directory {data}; set DAOS_DATA_DIR to use a server's\n"
    assert [say("token"), say("token")] == [made, ""]
    none = f"daos: no tokens besides the admin token in the data directory {data}\n"
    assert none in say("token", "list")
    say("token", "create", "ci")
    assert none not in say("token", "list")


def test_a_port_that_does_not_exist(tmp_path: Path) -> None:
    assert "70000" in refuse("serve", "--port", "70000", DAOS_DATA_DIR=str(tmp_path / "data"))


def test_an_address_that_is_not_ours(tmp_path: Path) -> None:
    line = refuse("serve", "--port", "0", "--host", "192.0.2.1", DAOS_DATA_DIR=str(tmp_path / "data"))
    assert "192.0.2.1" in line


@pytest.mark.parametrize("where", ["data", "data/below"])
def test_a_data_directory_that_is_a_file(tmp_path: Path, where: str) -> None:
    (tmp_path / "data").write_text("")
    assert str(tmp_path / where) in refuse("serve", "--port", "0", DAOS_DATA_DIR=str(tmp_path / where))


def test_a_data_directory_that_is_read_only() -> None:
    assert "/proc/daos" in refuse("serve", "--port", "0", DAOS_DATA_DIR="/proc/daos")


@pytest.mark.parametrize("name", ["runs", "runs-ssh"])
def test_a_place_of_runs_that_another_user_could_exchange(tmp_path: Path, name: str) -> None:
    """A local user has made it first: what Ansible executes would be theirs to choose."""
    (tmp_path / name).symlink_to("/var/empty")
    line = refuse("serve", "--port", "0", DAOS_DATA_DIR=str(tmp_path / "data"), DAOS_RUN_DIR=str(tmp_path / "runs"))
    assert f"{tmp_path / name} is not a directory" in line
    assert "DAOS_RUN_DIR" in line


def test_a_machine_without_ssh(tmp_path: Path) -> None:
    line = refuse("serve", "--port", "0", DAOS_DATA_DIR=str(tmp_path / "data"), PATH=str(tmp_path))
    assert "ssh" in line
    assert "openssh-client" in line


async def test_a_data_directory_that_another_server_has(
    make_server: MakeServer, connect: Connect, project: str
) -> None:
    server = make_server()
    client = connect(server)
    package = await client.package({"web": UNDECIDED})
    run_id = await client.start(await client.deployment(await client.local_host(), package, project))
    line = await asyncio.to_thread(refuse, "serve", "--port", "0", DAOS_DATA_DIR=str(server.data_dir))
    assert str(server.data_dir) in line
    assert "another daos" in line
    assert (await client.run(run_id))["status"] == "RUNNING"  # the second one took nothing away
    await client.cancel(run_id)
    assert (await client.end_of(run_id))["status"] == "CANCELED"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DAOS_MAX_RUNS", "many"),
        ("DAOS_SHUTDOWN_GRACE", "inf"),
        ("DAOS_DATABASE_URL", "mysql://localhost/daos"),
        ("DAOS_DATABASE_URL", "nonsense"),
        ("DAOS_DATABASE_URL", "postgresql://127.0.0.1:1/none"),
        ("DAOS_DATABASE_URL", "sqlite:////nowhere/at/all/daos.db"),
    ],
)
def test_a_setting_that_cannot_be_used(tmp_path: Path, name: str, value: str) -> None:
    line = refuse("serve", "--port", "0", **{"DAOS_DATA_DIR": str(tmp_path / "data"), name: value})
    assert name in line or name == "DAOS_DATABASE_URL"


def test_playbooks_that_cannot_be_played(tmp_path: Path) -> None:
    own = tmp_path / "own"
    environment = {"DAOS_DATA_DIR": str(tmp_path / "data"), "DAOS_PLAYBOOKS": str(own)}
    start = "daos: DAOS_PLAYBOOKS cannot be used: "
    missing = refuse("serve", "--port", "0", **environment)
    assert missing == f"{start}{own} is not a directory; create it, with a deploy.yml in it, or unset the setting"
    own.mkdir()
    assert refuse("serve", "--port", "0", **environment).startswith(f"{start}there is no deploy.yml in {own}; copy ")
    (own / "deploy.yml").write_text("- hosts: all\n")
    assert refuse("serve", "--port", "0", **environment).startswith(f"{start}{own}/deploy.yml must contain the task ")


def test_a_password_in_a_database_url_is_not_shown(tmp_path: Path) -> None:
    url = "postgresql://user:hunter2@127.0.0.1:1/none"
    assert "hunter2" not in refuse("serve", "--port", "0", DAOS_DATA_DIR=str(tmp_path / "data"), DAOS_DATABASE_URL=url)


@pytest.mark.parametrize("content", [b"no database at all" * 100, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_database_that_is_broken(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "daos.db").write_bytes(content)
    refuse("serve", "--port", "0", DAOS_DATA_DIR=str(tmp_path))


def test_a_database_of_a_newer_daos_is_used_and_one_of_another_program_is_not(tmp_path: Path) -> None:
    with contextlib.closing(Server(tmp_path, QUICK)) as server:  # with SQLite, whatever the others have
        server.start()
        server.stop()
        _set_version(server.data_dir, "9999")
        server.start()  # returns when it is ready
        assert "of a newer daos" in server.log
        server.stop()
        _set_version(server.data_dir, "1975ea83b712")
        refuse("serve", "--port", "0", DAOS_DATA_DIR=str(server.data_dir))


def _set_version(data_dir: Path, version: str) -> None:
    with sqlite3.connect(data_dir / "daos.db") as database:
        database.execute("update alembic_version set version_num = ?", [version])
    database.close()


@pytest.mark.parametrize("content", [b"", b"\xff\xfe"])
@pytest.mark.parametrize("name", ["secret-key", "admin-token"])
def test_a_key_file_that_is_broken(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert name in refuse("serve", "--port", "0", DAOS_DATA_DIR=str(tmp_path))


def test_a_keyring_that_is_set_and_not_there(tmp_path: Path) -> None:
    path = str(tmp_path / "missing")
    line = refuse("serve", "--port", "0", DAOS_DATA_DIR=str(tmp_path / "data"), DAOS_SECRET_KEY_FILE=path)
    assert line == f"daos: DAOS_SECRET_KEY_FILE cannot be read: No such file or directory ({path})"


async def test_the_first_start_has_nothing_and_the_next_one_keeps_what_there_is(
    make_server: MakeServer, connect: Connect
) -> None:
    server = make_server()
    client = connect(server)
    listing = "{ deployments { nodes { id } totalCount } hosts { nodes { id } } packages { nodes { id } } }"
    assert await client.ask(listing) == {
        "deployments": {"nodes": [], "totalCount": 0},
        "hosts": {"nodes": []},
        "packages": {"nodes": []},
    }
    token, host = server.token, await client.local_host()
    server.stop()
    server.start()
    assert server.token == token
    assert token not in server.log
    assert (await client.ask(listing))["hosts"]["nodes"] == [{"id": host}]


async def test_an_installed_daos_runs_deployments_in_a_bare_environment(
    bare: Server, connect: Connect, sshd: SshServer, new_project: NewProject
) -> None:
    client = connect(bare)
    package = await client.package({"web": SLEEPER})
    for host in (await client.local_host(), await client.ssh_host(sshd)):
        run = await client.play(await client.deployment(host, package, new_project()))
        assert run["status"] == "SUCCESS", await client.words(run["id"])
    async with httpx.AsyncClient(follow_redirects=True) as http:
        page = await http.get(f"{bare.url}/graphql", headers={"Accept": "text/html"})
    assert page.status_code == httpx.codes.OK
    assert bare.stop() == 0


@pytest.fixture
def bare(installed_daos: InstalledDaos, tmp_path: Path) -> Iterator[Server]:
    """An installed daos that was started as `env -i daos serve`."""
    server = Server(tmp_path, QUICK, [installed_daos.command], environment={})
    server.start()
    yield server
    server.close()
