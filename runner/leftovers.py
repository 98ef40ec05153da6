"""Processes that a run has started, found by a cookie in their environment.

Ansible's workers open sessions of their own and ssh's masters leave their parents, so neither a process group nor a
parent leads to all of them; the environment, which every one inherits, does.  Linux only: it reads /proc.
"""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

COOKIE = "DAOS_RUN"
POLL_INTERVAL = 0.02  # seconds


def find(cookie: str) -> list[int]:
    """The pids of all living processes whose cookie begins with `cookie`, but for the caller's own."""
    needle = f"\0{COOKIE}={cookie}".encode()
    pids = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        # A process that ends while it is looked at, or belongs to somebody else, is none of ours.
        with suppress(OSError):
            if needle in b"\0" + (entry / "environ").read_bytes():
                pids.append(int(entry.name))
    return pids


def end(cookie: str, grace: float) -> int:
    """SIGTERM to all processes of `cookie`, after `grace` seconds SIGKILL until none is left.  Returns their number."""
    found = find(cookie)
    if not found:
        return 0
    _signal(found, signal.SIGTERM)
    deadline = time.monotonic() + grace
    while (left := find(cookie)) and time.monotonic() < deadline:
        time.sleep(POLL_INTERVAL)
    while left:
        _signal(left, signal.SIGKILL)
        time.sleep(POLL_INTERVAL)
        left = find(cookie)
    return len(found)


def _signal(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)
