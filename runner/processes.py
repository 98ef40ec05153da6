"""Finds and ends the processes that a run has started, by a cookie in their environment.

Ansible's workers open their own sessions and ssh's control masters detach from their parents, so neither a process
group nor a parent leads to all processes; the environment, which each process inherits, does.  Only ssh's control
masters overwrite theirs with their title: a play process adopts them, and ends its children at its end.  Linux only,
because it reads /proc.
"""

import ctypes
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

COOKIE = "DAOS_RUN"
POLL_INTERVAL = 0.02  # seconds
COOKIE_ROOM = 160  # characters of a first cookie that any other cookie can replace, see `set_cookie`


class CookieNotSet(Exception):
    """This process cannot show a cookie other than the one that it was started with."""


def find(cookie: str) -> list[int]:
    """Return the pids of all running processes whose cookie begins with `cookie`, except the caller's own."""
    return _with("environ", f"\0{COOKIE}={cookie}")


def find_masters(directory: Path) -> list[int]:
    """Return the pids of ssh's control masters with a socket in `directory`; their environment has no cookie."""
    return _with("cmdline", f"\0ssh: {directory}/")


def _with(file: str, text: str) -> list[int]:
    """Return the pids of all processes that have `text` in a file of /proc, whose entries begin with a zero byte."""
    needle = text.encode()
    pids = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        # A process that ends while its file is read, or that belongs to another user, is not one of ours.
        with suppress(OSError):
            if needle in b"\0" + (entry / file).read_bytes():
                pids.append(int(entry.name))
    return pids


def end(cookie: str, grace: float) -> int:
    """End all processes of `cookie`, and return how many there were at first.

    They receive SIGTERM, and after `grace` seconds SIGKILL until none is left.
    """
    return _end(lambda: find(cookie), grace)


def end_masters(directory: Path, grace: float) -> int:
    """End ssh's control masters with a socket in `directory`, as `end` does."""
    return _end(lambda: find_masters(directory), grace)


def end_children(grace: float) -> int:
    """End the children of this process, as `end` does; if it adopts orphans, these are all of its descendants.

    Processes that the children start end too, because they become children.  No thread may wait for a child meanwhile.
    """
    return _end(_children, grace)


def _children() -> list[int]:
    """Return the pids of running children, and reap dead ones."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        return [int(child) for child in children]
    return []


def _end(find: Callable[[], list[int]], grace: float) -> int:
    found = find()
    if not found:
        return 0
    _signal(found, signal.SIGTERM)
    deadline = time.monotonic() + grace
    while (left := find()) and time.monotonic() < deadline:
        time.sleep(POLL_INTERVAL)
    while left:
        _signal(left, signal.SIGKILL)
        time.sleep(POLL_INTERVAL)
        left = find()
    return len(found)


def _signal(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def set_cookie(cookie: str) -> None:
    """Replace the cookie that this process was started with by `cookie`, so that `find` finds it.

    A forked process shows the environment that its program was started with, even if `os.environ` has changed since:
    /proc shows the memory at the beginning of the stack, which is overwritten here.  The first cookie must be long
    enough: see `COOKIE_ROOM`.  Raises: CookieNotSet.
    """
    beginning, end = _environment_block()
    block = ctypes.string_at(beginning, end - beginning)
    entry = f"{COOKIE}=".encode()
    at = 0 if block.startswith(entry) else block.find(b"\0" + entry) + 1
    room = block.find(b"\0", at) - at
    text = entry + cookie.encode()
    if not block[at:].startswith(entry) or room < len(text):
        raise CookieNotSet
    ctypes.memmove(beginning + at, text.ljust(room, b"\0"), room)
    if text not in Path("/proc/self/environ").read_bytes().split(b"\0"):
        raise CookieNotSet


def _environment_block() -> tuple[int, int]:
    """Return the addresses at which this process's initial environment begins and ends, see proc(5)."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    beginning, end = int(fields[47]), int(fields[48])  # fields 50 and 51 of the whole line
    if not beginning < end:
        raise CookieNotSet
    return beginning, end
