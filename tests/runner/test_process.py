"""A playing process, both ways: what it says, and that nothing is left of it, however it or the server ends."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from pathlib import Path

import pytest

from runner import leftovers
from runner.events import Event, Kind
from runner.keeper import Keeper
from runner.process import Process, environment
from tests.runner.plays import DEADLINE, SLOW, make_directory, wait_for, write_playbook
from tests.support.sshd import SshServer

Start = Callable[[Path, str, str], Awaitable[Process]]

# A server in miniature: starts the play and says so, then waits to be killed.
SERVER = """
import asyncio, sys
from pathlib import Path
from runner.keeper import Keeper
from runner.process import environment

async def main(directory, cookie, way):
    keeper = Keeper(directory / "kept", cookie, {}, warm=way == "warm")
    serving = asyncio.create_task(keeper.serve())
    assert await keeper.settled() == (way == "warm")
    playbook = str(directory / "play.yml")
    play = await keeper.start(directory, playbook, cookie, environment(directory, cookie, {}), [])
    async for event in play.events():
        print(event.kind, flush=True)

asyncio.run(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3]))
"""


def files_with(text: str, directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


@pytest.fixture(params=["cold", "warm"])
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def start(way: str, keeper: Keeper) -> Start:
    """Starts a play that way."""

    async def start(directory: Path, playbook: str, cookie: str) -> Process:
        variables = environment(directory, cookie, {})
        if way == "cold":
            return await Process.start(directory, playbook, cookie, variables, [])
        before = keeper.plays["warm"]
        play = await keeper.start(directory, playbook, cookie, variables, [])
        assert keeper.plays["warm"] == before + 1
        return play

    return start


async def test_a_play_tells_its_tasks_and_its_end(start: Start, directory: Path, cookie: str) -> None:
    playbook = write_playbook(
        directory,
        """
        - name: Two tasks
          hosts: all
          gather_facts: false
          tasks:
            - name: First
              ansible.builtin.raw: "true"
            - name: Second
              ansible.builtin.raw: "exit 3"
        """,
    )
    play = await start(directory, playbook, cookie)
    events = [event async for event in play.events() if event.kind is not Kind.WORDS]
    await play.stop()
    kinds = [(event.kind, event.task) for event in events]
    assert kinds[:-1] == [
        (Kind.TASK, "First"),
        (Kind.OK, "First"),
        (Kind.TASK, "Second"),
        (Kind.FAILED, "Second"),
    ]
    assert events[-1] == Event(Kind.END, rc=2)


async def test_a_stopped_play_leaves_no_process(start: Start, directory: Path, cookie: str) -> None:
    pids = directory / "pids"
    play = await start(directory, write_playbook(directory, SLOW.format(pids=pids)), cookie)
    async with aclosing(play.events()) as events:
        async for event in events:
            if event.kind is Kind.TASK:
                break
        wait_for(pids)
        assert len(leftovers.find(cookie)) > 3  # the process, Ansible, its worker, the command
        await play.stop()
        assert leftovers.find(cookie) == []


async def test_a_play_can_be_stopped_before_ansible_has_begun(start: Start, directory: Path, cookie: str) -> None:
    play = await start(directory, write_playbook(directory, SLOW.format(pids=directory / "pids")), cookie)
    await play.stop()
    assert leftovers.find(cookie) == []


async def test_a_killed_play_has_no_end_and_leaves_no_process_once_stopped(
    start: Start, directory: Path, cookie: str
) -> None:
    pids = directory / "pids"
    play = await start(directory, write_playbook(directory, SLOW.format(pids=pids)), cookie)
    events = []
    async for event in play.events():
        events.append(event.kind)
        if event.kind is Kind.TASK:
            wait_for(pids)
            os.kill(play.pid, signal.SIGKILL)
    assert Kind.END not in events
    await play.stop()
    assert leftovers.find(cookie) == []


def test_a_play_ends_with_all_it_started_when_the_server_is_killed(directory: Path, cookie: str, way: str) -> None:
    pids = directory / "pids"
    write_playbook(directory, SLOW.format(pids=pids))
    command = [sys.executable, "-c", SERVER, str(directory), cookie, way]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as server:
        wait_for(pids)
        server.kill()
        server.wait()
    deadline = time.monotonic() + DEADLINE
    while leftovers.find(cookie) or leftovers.find(f"warm/{cookie}"):
        assert time.monotonic() < deadline
        time.sleep(0.01)


async def test_nothing_of_the_servers_environment_reaches_a_play(
    start: Start, directory: Path, cookie: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_PASSWORD", "hunter2-in-the-environment")
    out = directory / "environment"
    playbook = write_playbook(
        directory,
        f"""
        - name: Show
          hosts: all
          gather_facts: false
          tasks:
            - name: Show
              ansible.builtin.raw: "env > {out}"
        """,
    )
    play = await start(directory, playbook, cookie)
    assert [event.rc async for event in play.events()][-1] == 0
    await play.stop()
    assert "PATH=" in out.read_text()
    assert "hunter2" not in out.read_text()
    assert files_with("hunter2", directory) == []  # ansible-runner writes what it is given to one


async def test_user_strings_are_not_templated(start: Start, directory: Path, cookie: str) -> None:
    template = "{{ lookup('pipe', 'touch " + str(directory / "owned") + "') }}"
    host = {"ansible_connection": "local", "text": {"__ansible_unsafe": template}}
    (directory / "inventory.json").write_text(json.dumps({"all": {"hosts": {"here": host}}}))
    playbook = write_playbook(
        directory,
        """
        - name: Use it
          hosts: all
          gather_facts: false
          tasks:
            - name: Print
              ansible.builtin.debug:
                var: text
        """,
    )
    play = await start(directory, playbook, cookie)
    assert [event.rc async for event in play.events()][-1] == 0
    await play.stop()
    assert not (directory / "owned").exists()


@pytest.mark.parametrize("stopped", [False, True])
async def test_a_play_leaves_no_ssh_master(
    start: Start, tmp_path: Path, cookie: str, sshd: SshServer, stopped: bool
) -> None:
    with tempfile.TemporaryDirectory(prefix="d") as sockets:
        options = "-F none -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"
        directory = make_directory(
            tmp_path / "run",
            ansible_connection="ssh",
            ansible_host=sshd.address,
            ansible_port=sshd.port,
            ansible_user=sshd.user,
            ansible_ssh_private_key_file=str(sshd.key_path),
            ansible_ssh_common_args=options,
            ansible_control_path=f"{sockets}/%%C",
        )
        pids = directory / "pids"
        slow = SLOW if stopped else SLOW.replace("sleep 300", "true")
        play = await start(directory, write_playbook(directory, slow.format(pids=pids)), cookie)
        seen = []
        async for event in play.events():
            if event.kind is Kind.TASK and stopped:
                wait_for(pids)
                seen += leftovers.find_masters(Path(sockets))
                await play.stop()
        await play.stop()
        assert len(seen) == stopped
        assert leftovers.find_masters(Path(sockets)) == []
