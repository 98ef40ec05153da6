"""Processes of a run are found by their cookie, wherever they have gone."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from runner import processes

# A child in a session of its own whose parent has ended, as Ansible's workers and ssh's masters leave it.
ESCAPE = "import subprocess, sys; subprocess.Popen(['sleep', '300'], start_new_session=True)"
# Says when it is ready, and does not end on SIGTERM.
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(300)"


def test_a_process_that_left_its_parent_and_session_is_found_and_ended(cookie: str) -> None:
    subprocess.run([sys.executable, "-c", ESCAPE], env={**os.environ, processes.COOKIE: cookie}, check=True)
    assert len(processes.find(cookie)) == 1
    assert processes.end(cookie, grace=5.0) == 1
    assert processes.find(cookie) == []


def test_a_process_that_ignores_sigterm_is_killed_after_the_grace(cookie: str) -> None:
    environment = {**os.environ, processes.COOKIE: cookie}
    with subprocess.Popen([sys.executable, "-c", DEAF], env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        processes.end(cookie, grace=0.1)
        assert process.wait() == -9


def test_only_the_named_runs_processes_are_found(cookie: str) -> None:
    environment = {**os.environ, processes.COOKIE: f"{cookie}/one"}
    with subprocess.Popen(["sleep", "300"], env=environment) as process:
        assert processes.find(f"{cookie}/two") == []
        assert processes.find(f"{cookie}/one") == [process.pid]
        assert processes.find(cookie) == [process.pid]  # all of a server's runs
        process.kill()


def test_nothing_to_end_is_nothing_done(cookie: str) -> None:
    assert processes.end(cookie, grace=60.0) == 0


FORKING = """
import os, sys, time
from runner import processes
try:
    processes.set_cookie(sys.argv[1])
except processes.CookieNotSet:
    print("cannot", flush=True)
else:
    if os.fork() == 0:
        print("set", flush=True)
        time.sleep(300)
"""


@contextmanager
def started(first: str, cookie: str) -> Iterator[str]:
    """Yield the answer of a process that was started with the cookie `first` and sets `cookie`."""
    environment = {"A": "1", processes.COOKIE: first, "B": "2"}
    command = [sys.executable, "-c", FORKING, cookie]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        word = process.stdout.readline().strip()
        process.wait()  # it leaves a fork with the cookie behind, and shows the same cookie until it has ended
        yield word
        processes.end(cookie, 0)


def test_a_fork_is_found_by_the_cookie_that_it_sets(cookie: str) -> None:
    with started(f"first-{cookie}".ljust(processes.COOKIE_ROOM, "/"), f"{cookie}/run") as word:
        assert word == "set"
        assert processes.find(f"first-{cookie}") == []
        assert len(processes.find(cookie)) == 1
        assert processes.find(f"{cookie}/run") == processes.find(cookie)
        assert processes.find(f"{cookie}/other") == []


def test_a_cookie_without_room_cannot_be_set(cookie: str) -> None:
    with started("short", cookie) as word:
        assert word == "cannot"
