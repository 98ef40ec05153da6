"""Processes that a run has started, found by a cookie in their environment.

Ansible's workers open sessions of their own and ssh's masters leave their parents, so neither a process group nor a
parent leads to all of them; the environment, which every one inherits, does.  Only ssh's masters write their title over
theirs: a playing process adopts them, and ends its children at its end.  Linux only: it reads /proc.
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
ROOM = 160  # characters that a cookie has to have for every other one to fit in its place, see `bear`


class CannotBear(Exception):
    """This process cannot show another cookie than the one that it was started with."""


def find(cookie: str) -> list[int]:
    """The pids of all living processes whose cookie begins with `cookie`, but for the caller's own."""
    return _with("environ", f"\0{COOKIE}={cookie}")


def find_masters(directory: Path) -> list[int]:
    """The pids of ssh's masters with a socket in `directory`: they write their title over their environment."""
    return _with("cmdline", f"\0ssh: {directory}/")


def _with(file: str, text: str) -> list[int]:
    """The pids of all processes that have `text` in a file of /proc; an entry of it begins with a zero byte."""
    needle = text.encode()
    pids = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        # A process that ends while it is looked at, or belongs to somebody else, is none of ours.
        with suppress(OSError):
            if needle in b"\0" + (entry / file).read_bytes():
                pids.append(int(entry.name))
    return pids


def end(cookie: str, grace: float) -> int:
    """SIGTERM to all processes of `cookie`, after `grace` seconds SIGKILL until none is left.  Returns their number."""
    return _end(lambda: find(cookie), grace)


def end_masters(directory: Path, grace: float) -> int:
    """The same for ssh's masters with a socket in `directory`."""
    return _end(lambda: find_masters(directory), grace)


def end_children(grace: float) -> int:
    """The same for the children of this process: all that is left of its descendants, when it adopts orphans.

    What they start ends too, for it becomes a child then.  No thread may be waiting for a child meanwhile.
    """
    return _end(_children, grace)


def _children() -> list[int]:
    """The pids of living children; dead ones are taken leave of."""
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


def bear(cookie: str) -> None:
    """Show `cookie` in this process's environment in place of the one it was started with.  Raises: CannotBear.

    A process that was forked shows the environment that its program was started with, however `os.environ` has changed
    since; what /proc shows is the memory at the beginning of the stack, and that is written over here.  The first
    cookie has to leave room: see `ROOM`.
    """
    beginning, end = _environment_block()
    block = ctypes.string_at(beginning, end - beginning)
    entry = f"{COOKIE}=".encode()
    at = 0 if block.startswith(entry) else block.find(b"\0" + entry) + 1
    room = block.find(b"\0", at) - at
    text = entry + cookie.encode()
    if not block[at:].startswith(entry) or room < len(text):
        raise CannotBear
    ctypes.memmove(beginning + at, text.ljust(room, b"\0"), room)
    if text not in Path("/proc/self/environ").read_bytes().split(b"\0"):
        raise CannotBear


def _environment_block() -> tuple[int, int]:
    """Where this process's first environment begins and ends in its memory, see proc(5)."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    beginning, end = int(fields[47]), int(fields[48])  # fields 50 and 51 of the whole line
    if not beginning < end:
        raise CannotBear
    return beginning, end
