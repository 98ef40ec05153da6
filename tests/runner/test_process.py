"""A playing process: what it says, and that nothing is left of it, however it or the server ends."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from uuid import uuid4

import pytest

from runner import leftovers, process
from runner.events import Event, Kind
from runner.process import Process

DEADLINE = 20.0  # seconds

SLOW = """
- name: Wait
  hosts: all
  gather_facts: false
  tasks:
    - name: Sleep
      ansible.builtin.raw: "echo $$ > {pids}; sleep 300"
"""

# A server in miniature: starts the play and says so, then waits to be killed.
SERVER = """
import asyncio, sys
from pathlib import Path
from runner.events import Kind
from runner.process import Process, environment

async def main(directory, cookie):
    play = await Process.start(directory, str(directory / "play.yml"), cookie, environment(directory, cookie, {}), [])
    async for event in play.events():
        print(event.kind, flush=True)

asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
"""


@pytest.fixture
def cookie() -> Iterator[str]:
    cookie = f"test-{uuid4()}"
    yield cookie
    leftovers.end(cookie, 0)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A run's directory with one local host."""
    host = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    (tmp_path / "tmp").mkdir()
    (tmp_path / "inventory.json").write_text(json.dumps({"all": {"hosts": {"here": host}}}))
    return tmp_path


def write_playbook(directory: Path, text: str) -> str:
    path = directory / "play.yml"
    path.write_text(textwrap.dedent(text))
    return str(path)


async def start(directory: Path, playbook: str, cookie: str) -> Process:
    return await Process.start(directory, playbook, cookie, process.environment(directory, cookie, {}), [])


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + DEADLINE
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


async def test_a_play_tells_its_tasks_and_its_end(directory: Path, cookie: str) -> None:
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


async def test_a_stopped_play_leaves_no_process(directory: Path, cookie: str) -> None:
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


async def test_a_play_can_be_stopped_before_ansible_has_begun(directory: Path, cookie: str) -> None:
    play = await start(directory, write_playbook(directory, SLOW.format(pids=directory / "pids")), cookie)
    await play.stop()
    assert leftovers.find(cookie) == []


async def test_a_killed_play_has_no_end_and_leaves_no_process_once_stopped(directory: Path, cookie: str) -> None:
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


def test_a_play_ends_with_all_it_started_when_the_server_is_killed(directory: Path, cookie: str) -> None:
    pids = directory / "pids"
    write_playbook(directory, SLOW.format(pids=pids))
    command = [sys.executable, "-c", SERVER, str(directory), cookie]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as server:
        wait_for(pids)
        server.kill()
        server.wait()
    deadline = time.monotonic() + DEADLINE
    while leftovers.find(cookie):
        assert time.monotonic() < deadline
        time.sleep(0.01)


async def test_nothing_of_the_servers_environment_reaches_a_play(
    directory: Path, cookie: str, monkeypatch: pytest.MonkeyPatch
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
    command = (directory / "artifacts" / "play" / "command").read_text()  # where ansible-runner writes it all down
    assert "hunter2" not in command


async def test_user_strings_are_not_templated(directory: Path, cookie: str) -> None:
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
