"""The warm process: plays on it are what they are as programs of their own, and nothing is left of them."""

import asyncio
import fcntl
import os
import signal
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from runner import processes
from runner.play import channel
from runner.play.channel import Refused
from runner.play.event import Event, Kind
from runner.play.play import Process, environment
from runner.play.request import PlayRequest
from runner.play.warm import WarmAnsible
from tests.runner.plays import SLOW, make_directory, request_of, until, wait_for, warmed, write_playbook

# Writes down what a command of a play finds around it, apart from the play's own names.
SURROUNDINGS = """
- name: Look
  hosts: all
  gather_facts: false
  tasks:
    - name: Look
      ansible.builtin.raw: >-
        (umask; pwd; ulimit -a; env | sort; grep -E 'Sig(Blk|Ign)|Groups|NoNewPrivs' /proc/self/status;
        ls /proc/self/fd; ps -o nice=,stat= -p $$) > {out}
"""

PLAYS = {
    "ok": """
        - hosts: all
          gather_facts: false
          tasks:
            - name: Say
              debug: {msg: "ö {{ inventory_hostname }} {{ 'ab' | upper }} {{ 1 is odd }}"}
            - name: Loop
              raw: "echo {{ item }}"
              loop: [1, 2]
            - name: Skip
              raw: "true"
              when: false
            - name: Module
              command: "true"
        """,
    "failed": """
        - hosts: all
          gather_facts: false
          tasks:
            - name: Ignored
              raw: "exit 1"
              ignore_errors: true
            - name: Undefined
              debug: {msg: "{{ nothing_of_that_name }}"}
        """,
    "warnings": """
        - hosts: all, nobody
          gather_facts: false
          tasks:
            - name: Careless
              raw: "true"
              when: "{{ true }}"
            - name: Unknown
              meta: refresh_inventory
        """,
    "no hosts": """
        - hosts: nobody
          tasks: []
        """,
    "much and strange output": r"""
        - hosts: all
          gather_facts: false
          tasks:
            - name: Much
              raw: head -c 500000 /dev/zero | tr '\\0' x
              register: much
            - name: Say
              debug: {msg: "{{ much.stdout | length }} {{ much.stdout }}"}
            - name: Strange
              raw: printf '\\377\\033[Kabc\\n'
        """,
    "no YAML": "- hosts: [",
    "unknown module": """
        - hosts: all
          gather_facts: false
          tasks:
            - name: Unknown
              no_module_of_that_name:
        """,
}


async def play(warm: WarmAnsible | None, directory: Path, playbook: str, cookie: str) -> list[Event]:
    """The events of a warm play, or of a cold one without warm Ansible."""
    start = Process.start if warm is None else warm.start
    process = await start(request_of(directory, playbook, cookie))
    try:
        return [event async for event in process.events()]
    finally:
        await process.stop()


def warm_pid(warm: WarmAnsible) -> int:
    assert warm.pid is not None
    return warm.pid


def is_locked(path: Path) -> bool:
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def has_open(pid: int, path: Path) -> bool:
    return any(link.exists() and link.samefile(path) for link in Path(f"/proc/{pid}/fd").iterdir())


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def descriptors(pid: int | str) -> Counter[str]:
    links = [path for path in Path(f"/proc/{pid}/fd").iterdir() if path.is_symlink()]
    return Counter(str(path.readlink()).split(":")[0] for path in links)


def temporary_files(directory: Path) -> list[Path]:
    return list(directory.glob("*/tmp/*"))


@pytest.mark.parametrize("name", PLAYS)
async def test_a_play_tells_the_same_both_ways(name: str, warm: WarmAnsible, tmp_path: Path, cookie: str) -> None:
    directory = make_directory(tmp_path / "same")
    playbook = write_playbook(directory, PLAYS[name])
    cold = await play(None, directory, playbook, cookie)
    same = await play(warm, directory, playbook, cookie)
    assert same == cold
    assert same[-1].kind is Kind.END


async def test_an_unreachable_host_is_told_the_same_both_ways(warm: WarmAnsible, tmp_path: Path, cookie: str) -> None:
    directory = make_directory(tmp_path / "same", ansible_connection="ssh", ansible_host="127.0.0.1", ansible_port=9)
    playbook = write_playbook(directory, SLOW.format(pids=directory / "pids"))
    cold = await play(None, directory, playbook, cookie)
    assert await play(warm, directory, playbook, cookie) == cold
    assert Kind.UNREACHABLE in {event.kind for event in cold}


async def test_a_play_finds_the_same_around_it_both_ways(warm: WarmAnsible, tmp_path: Path, cookie: str) -> None:
    directory = make_directory(tmp_path / "same")
    found = []
    for one in (None, warm):
        out = directory / f"out-{one is None}"
        await play(one, directory, write_playbook(directory, SURROUNDINGS.format(out=out)), cookie)
        lines = [line for line in out.read_text().splitlines() if not line.startswith(("AWX_ISOLATED_DATA_DIR=", "_="))]
        found.append(lines)
    assert found[0] == found[1]
    assert f"{processes.COOKIE}={cookie}" in found[1]


async def test_a_play_with_another_environment_is_refused(warm: WarmAnsible, directory: Path, cookie: str) -> None:
    playbook = write_playbook(directory, PLAYS["ok"])
    with pytest.raises(Refused, match="ANSIBLE_FORKS"):
        await warm.start(request_of(directory, playbook, cookie, passed_on={"ANSIBLE_FORKS": "7"}))


async def test_plays_are_refused_when_the_self_test_differs(
    tmp_path: Path, directory: Path, cookie: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def other(request: PlayRequest) -> Process:
        """A cold play of something else than the example."""
        playbook = write_playbook(request.directory, PLAYS["failed"])
        return await Process.start(replace(request, playbook=playbook))

    warm = WarmAnsible(tmp_path / "kept", cookie, {}, cold=other)
    await warm.serve()
    assert not await warm.decided()
    assert len([record for record in caplog.records if record.levelname == "WARNING"]) == 1
    assert processes.find(f"warm/{cookie}") == []
    with pytest.raises(Refused):
        await warm.start(request_of(directory, write_playbook(directory, PLAYS["ok"]), cookie))


async def test_many_plays_at_once_leave_nothing(warm: WarmAnsible, tmp_path: Path, cookie: str) -> None:
    pid = warm_pid(warm)

    async def one(number: int) -> Event:
        directory = make_directory(tmp_path / str(number))
        playbook = write_playbook(directory, PLAYS["ok"])
        return (await play(warm, directory, playbook, f"{cookie}/{number}"))[-1]

    await one(0)
    before = descriptors(pid), descriptors("self")
    ends = await asyncio.gather(*(one(number) for number in range(1, 9)))
    assert ends == [Event(Kind.END, rc=0)] * 8
    assert (descriptors(pid), descriptors("self")) == before
    assert children(pid) == []
    assert processes.find(cookie) == []
    assert temporary_files(tmp_path) == []


async def test_a_play_outlives_the_warm_process_and_the_next_one_gets_another(tmp_path: Path, cookie: str) -> None:
    async with warmed(tmp_path / "kept", cookie) as warm:
        directory = make_directory(tmp_path / "run")
        end = directory / "end"
        slow = SLOW.replace("sleep 300", "while ! test -e {end}; do sleep 0.01; done")
        playbook = write_playbook(directory, slow.format(pids=directory / "pids", end=end))
        process = await warm.start(request_of(directory, playbook, f"{cookie}/1"))
        reading = asyncio.create_task(_all(process))
        await asyncio.to_thread(wait_for, directory / "pids")
        killed = warm_pid(warm)
        os.kill(killed, signal.SIGKILL)
        await until(lambda: warm.is_ready and warm.pid != killed)
        end.touch()
        events = await reading
        await process.stop()
        assert events[-1] == Event(Kind.END, rc=0)
        assert processes.find(f"{cookie}/1") == []
        assert (await play(warm, make_directory(tmp_path / "2"), playbook, f"{cookie}/2"))[-1].rc == 0


async def test_a_warm_process_that_does_nothing_is_replaced_and_plays_nothing_later(
    tmp_path: Path, cookie: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel, "BEGIN_TIMEOUT", 0.3)
    async with warmed(tmp_path / "kept", cookie) as warm:
        frozen = warm_pid(warm)
        os.kill(frozen, signal.SIGSTOP)
        directory = make_directory(tmp_path / "run")
        count = directory / "count"
        playbook = write_playbook(directory, SLOW.replace("echo $$ > {pids}; sleep 300", f"echo played >> {count}"))
        with pytest.raises(Refused):
            await warm.start(request_of(directory, playbook, f"{cookie}/1"))
        monkeypatch.undo()
        await until(lambda: warm.is_ready and warm.pid != frozen)
        assert (await play(warm, directory, playbook, f"{cookie}/2"))[-1].rc == 0
        assert count.read_text() == "played\n"


async def test_a_play_that_is_not_told_to_begin_does_not(warm: WarmAnsible, directory: Path, cookie: str) -> None:
    pids = directory / "pids"
    playbook = write_playbook(directory, SLOW.format(pids=pids))
    assert warm._control is not None
    request = {
        "environment": environment(directory, cookie, {}),
        "spec": {"directory": str(directory), "project": str(directory), "playbook": playbook, "held": []},
    }
    pipes = await channel._send_request(warm._control, request, [])
    begun = await pipes.read()
    assert begun is not None
    assert begun["kind"] == "begun"
    pipes.stdin.close()
    assert await pipes.read() is None
    pipes.close()
    assert not pids.exists()


async def test_a_play_holds_its_descriptors_until_it_ends_and_the_warm_process_does_not(
    warm: WarmAnsible, directory: Path, cookie: str
) -> None:
    path = directory / "lock"
    lock = os.open(path, os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    playbook = write_playbook(directory, SLOW.format(pids=directory / "pids"))
    process = await warm.start(request_of(directory, playbook, cookie, kept_open=(lock,)))
    os.close(lock)
    reading = asyncio.create_task(_all(process))
    await asyncio.to_thread(wait_for, directory / "pids")
    assert is_locked(path)
    assert [pid for pid in processes.find(cookie) if has_open(pid, path)] == [process.pid]
    await process.stop()
    await reading
    assert not is_locked(path)


async def test_a_killed_play_process_takes_ansible_with_it(warm: WarmAnsible, directory: Path, cookie: str) -> None:
    playbook = write_playbook(directory, SLOW.format(pids=directory / "pids"))
    process = await warm.start(request_of(directory, playbook, cookie))
    reading = asyncio.create_task(_all(process))
    await asyncio.to_thread(wait_for, directory / "pids")
    os.kill(process.pid, signal.SIGKILL)
    assert Kind.END not in {event.kind for event in await reading}
    await until(lambda: not processes.find(cookie))  # nobody has asked for it
    await process.stop()


async def test_the_warm_process_ends_with_who_keeps_it(tmp_path: Path, cookie: str) -> None:
    async with warmed(tmp_path / "kept", cookie) as warm:
        pid = warm_pid(warm)
        assert processes.find(f"warm/{cookie}") == [pid]
    assert processes.find(f"warm/{cookie}") == []
    assert list((tmp_path / "kept").iterdir()) == []


async def _all(process: Process) -> list[Event]:
    return [event async for event in process.events()]
