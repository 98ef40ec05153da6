"""A playing process, both ways: what it says, and that nothing is left of it, however it or the server ends."""

import asyncio
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Protocol

import pytest

from runner import processes
from runner.play.control import clock
from runner.play.event import Event, Kind
from runner.play.play import LINE_LIMIT, Process, Program, environment, spec
from runner.play.warm import WarmAnsible
from tests.runner.plays import DEADLINE, SLOW, make_directory, request_of, until, wait_for, write_playbook
from tests.support.sshd import SshServer

# A server in miniature: starts the play and says so, then waits to be killed.  With a lease in seconds, it tells the
# play of that once it is under way, and never again.
SERVER = """
import asyncio, sys
from pathlib import Path
from runner.play.control import clock
from runner.play.play import Process, environment
from runner.play.request import PlayRequest
from runner.play.warm import WarmAnsible

async def main(directory, cookie, way, lease):
    warm = WarmAnsible(directory / "kept", cookie, {})
    serving = asyncio.create_task(warm.serve())
    assert way == "cold" or await warm.decided()
    start = Process.start if way == "cold" else warm.start
    play = await start(PlayRequest(directory, str(directory / "play.yml"), cookie, environment(directory, cookie, {})))
    if lease:
        while not (directory / "pids").exists():
            await asyncio.sleep(0.01)
        play.extend(clock() + lease)
        print("told", flush=True)
    async for event in play.events():
        print(event.kind, flush=True)

asyncio.run(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], float(sys.argv[4])))
"""

# Says more than a pipe can hold, then goes on.
LOUD = """
- name: Say much
  hosts: all
  gather_facts: false
  tasks:
    - name: Say
      ansible.builtin.debug:
        msg: "{{{{ 'x' * 200000 }}}}"
    - name: Sleep
      ansible.builtin.raw: "echo $$ > {pids}; sleep 300"
"""


class Start(Protocol):
    """Starts a play."""

    async def __call__(
        self, directory: Path, playbook: str, cookie: str, *, deadline: float | None = None
    ) -> Process: ...


def files_with(text: str, directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


def wait_until_gone(cookie: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while processes.find(cookie):
        assert time.monotonic() < deadline
        time.sleep(0.01)


async def events_of(play: Process) -> list[Event]:
    async with asyncio.timeout(DEADLINE):
        return [event async for event in play.events()]


@contextmanager
def unread(way: str, warm: WarmAnsible, directory: Path, playbook: str, cookie: str) -> Iterator[tuple[int, int]]:
    """A play whose server never reads: its stdin, to write to, and its stdout, to ask whether it is full."""
    variables = environment(directory, cookie, {})
    request = spec(request_of(directory, playbook, cookie), held=())
    its_stdin, stdin = os.pipe()
    stdout, its_stdout = os.pipe()
    command = [sys.executable, "-P", "-m", "runner.play.program"]
    process = None
    if way == "cold":
        process = subprocess.Popen(command, stdin=its_stdin, stdout=its_stdout, env=variables)
        write_line(stdin, request)
    else:
        assert warm._control is not None
        message = json.dumps({"environment": variables, "spec": request}).encode()
        socket.send_fds(warm._control, [message], [its_stdin, its_stdout, 2])
        write_line(stdin, {"begin": True})
    os.close(its_stdin)
    try:
        yield stdin, its_stdout
    finally:
        processes.end(cookie, 0)
        if process is not None:
            process.wait()
        for descriptor in (stdin, stdout, its_stdout):
            os.close(descriptor)


def write_line(descriptor: int, message: object) -> None:
    os.write(descriptor, json.dumps(message).encode() + b"\n")


def is_full(descriptor: int) -> bool:
    return not select.select([], [descriptor], [], 0)[1]


@pytest.fixture(params=["cold", "warm"])
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def start(way: str, warm: WarmAnsible) -> Start:
    """Starts a play that way."""

    async def start(directory: Path, playbook: str, cookie: str, *, deadline: float | None = None) -> Process:
        request = request_of(directory, playbook, cookie, deadline=deadline)
        return await (Process.start if way == "cold" else warm.start)(request)

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
    events = [event async for event in play.events() if event.kind is not Kind.MESSAGE]
    await play.stop()
    kinds = [(event.kind, event.task) for event in events]
    assert kinds[:-1] == [
        (Kind.TASK, "First"),
        (Kind.OK, "First"),
        (Kind.TASK, "Second"),
        (Kind.FAILED, "Second"),
    ]
    assert events[-1] == Event(Kind.END, rc=2)


FLOOD = """
import sys, time
print('{"kind": "task", "task": "Prepare"}', flush=True)
for stream in (sys.stderr, sys.stdout):
    for _ in range(LIMIT // 65536 + 2):
        stream.write("x" * 65536)
    stream.flush()
time.sleep(600)
"""


async def test_a_play_that_tells_too_much_is_killed(
    directory: Path, cookie: str, caplog: pytest.LogCaptureFixture
) -> None:
    """One endless line on stderr, which is logged in parts, and then one on stdout."""
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", FLOOD.replace("LIMIT", str(LINE_LIMIT))),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        limit=LINE_LIMIT,
    )
    play = Process(Program(program), request_of(directory, "none.yml", cookie))
    async with asyncio.timeout(DEADLINE):
        events = await events_of(play)
        await play.stop()
    assert [event.kind for event in events] == [Kind.TASK]
    assert program.returncode == -signal.SIGKILL
    assert max(len(record.message) for record in caplog.records) < 128 * 1024


async def test_a_stopped_play_leaves_no_process(start: Start, directory: Path, cookie: str) -> None:
    pids = directory / "pids"
    play = await start(directory, write_playbook(directory, SLOW.format(pids=pids)), cookie)
    async with aclosing(play.events()) as events:
        async for event in events:
            if event.kind is Kind.TASK:
                break
        wait_for(pids)
        assert len(processes.find(cookie)) > 3  # the process, Ansible, its worker, the command
        await play.stop()
        assert processes.find(cookie) == []


async def test_a_play_can_be_stopped_before_ansible_has_begun(start: Start, directory: Path, cookie: str) -> None:
    play = await start(directory, write_playbook(directory, SLOW.format(pids=directory / "pids")), cookie)
    await play.stop()
    assert processes.find(cookie) == []


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
    assert processes.find(cookie) == []


def test_a_play_ends_with_all_it_started_when_the_server_is_killed(directory: Path, cookie: str, way: str) -> None:
    pids = directory / "pids"
    write_playbook(directory, SLOW.format(pids=pids))
    command = [sys.executable, "-c", SERVER, str(directory), cookie, way, "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as server:
        wait_for(pids)
        server.kill()
        server.wait()
    wait_until_gone(cookie)
    wait_until_gone(f"warm/{cookie}")


async def test_a_play_ends_at_its_first_deadline_and_leaves_no_process(
    start: Start, directory: Path, cookie: str
) -> None:
    deadline = clock() + 1
    play = await start(
        directory, write_playbook(directory, SLOW.format(pids=directory / "pids")), cookie, deadline=deadline
    )
    kinds = {event.kind for event in await events_of(play)}
    assert clock() >= deadline
    assert kinds <= {Kind.TASK}
    assert processes.find(cookie) == []
    await play.stop()


async def test_a_play_ends_at_the_deadline_that_it_is_told_and_says_nothing_of_it(
    start: Start, directory: Path, cookie: str
) -> None:
    pids = directory / "pids"
    play = await start(directory, write_playbook(directory, SLOW.format(pids=pids)), cookie)
    wait_for(pids)
    assert len(processes.find(cookie)) > 3  # as above
    play.extend(clock() + 0.1)
    assert await events_of(play) == [Event(Kind.TASK, task="Sleep")]
    assert processes.find(cookie) == []
    await play.stop()


async def test_a_play_whose_deadline_is_moved_goes_on(start: Start, directory: Path, cookie: str) -> None:
    pids, end = directory / "pids", directory / "end"
    slow = SLOW.replace("sleep 300", "while ! test -e {end}; do sleep 0.01; done")
    deadline = clock() + 300
    playbook = write_playbook(directory, slow.format(pids=pids, end=end))
    play = await start(directory, playbook, cookie, deadline=deadline)
    wait_for(pids)
    for seconds in (0.5, 1.0, 300.0):
        deadline = clock() + seconds
        play.extend(deadline)
    await until(lambda: clock() > deadline - 298)
    end.touch()
    assert (await events_of(play))[-1] == Event(Kind.END, rc=0)
    await play.stop()


async def test_a_play_whose_deadline_has_passed_at_its_start_does_nothing(
    start: Start, directory: Path, cookie: str
) -> None:
    pids = directory / "pids"
    playbook = write_playbook(directory, SLOW.replace("; sleep 300", "").format(pids=pids))
    play = await start(directory, playbook, cookie, deadline=clock() - 1)
    assert await events_of(play) == []
    await play.stop()
    assert not pids.exists()


async def test_a_play_that_has_ended_hears_of_no_deadline(
    start: Start, directory: Path, cookie: str, caplog: pytest.LogCaptureFixture
) -> None:
    play = await start(directory, write_playbook(directory, SLOW.format(pids=directory / "pids")), cookie)
    os.kill(play.pid, signal.SIGKILL)
    for _ in range(10):
        play.extend(clock() + 1)
    await events_of(play)
    await play.stop()
    for _ in range(10):
        play.extend(clock() + 1)
    assert caplog.records == []


def test_a_play_ends_at_its_deadline_when_the_server_is_frozen(directory: Path, cookie: str, way: str) -> None:
    write_playbook(directory, SLOW.format(pids=directory / "pids"))
    command = [sys.executable, "-c", SERVER, str(directory), cookie, way, "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == b"told\n"
        server.send_signal(signal.SIGSTOP)
        try:
            wait_until_gone(cookie)
        finally:
            server.kill()
    wait_until_gone(f"warm/{cookie}")


async def test_a_play_that_waits_for_its_server_to_read_ends_at_its_deadline(
    way: str, warm: WarmAnsible, directory: Path, cookie: str
) -> None:
    pids = directory / "pids"
    playbook = write_playbook(directory, LOUD.format(pids=pids))
    with unread(way, warm, directory, playbook, cookie) as (stdin, stdout):
        await until(lambda: is_full(stdout))
        wait_for(pids)
        assert len(processes.find(cookie)) > 3  # as above
        write_line(stdin, {"deadline": clock() + 0.1})
        await until(lambda: not processes.find(cookie))


async def test_a_play_that_was_told_to_stop_and_is_not_read_ends_at_its_deadline(
    way: str, warm: WarmAnsible, directory: Path, cookie: str
) -> None:
    playbook = write_playbook(directory, LOUD.format(pids=directory / "pids"))
    with unread(way, warm, directory, playbook, cookie) as (stdin, stdout):
        await until(lambda: is_full(stdout))
        write_line(stdin, {"stop": True})
        await until(lambda: len(processes.find(cookie)) == 1)  # the process itself, which has yet to say its end
        write_line(stdin, {"deadline": clock()})
        await until(lambda: not processes.find(cookie))


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
                seen += processes.find_masters(Path(sockets))
                await play.stop()
        await play.stop()
        assert len(seen) == stopped
        assert processes.find_masters(Path(sockets)) == []
