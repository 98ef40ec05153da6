"""Makes a process that was forked a process of its own, as far as Linux and Python are concerned."""

import ctypes
import os
import signal
import sys
import tempfile
from collections.abc import Mapping

# From linux/prctl.h.
_SET_PDEATHSIG = 1
_SET_CHILD_SUBREAPER = 36


def renew(environment: Mapping[str, str]) -> None:
    """Forget what Python has remembered of the process that this one was forked from."""
    tempfile.tempdir = None
    replace_environment(environment)
    open_streams("backslashreplace")


def replace_environment(environment: Mapping[str, str]) -> None:
    """Make `environment` all that programs inherit from this process."""
    os.environ.clear()
    os.environ.update(environment)


def open_streams(errors: str) -> None:
    """Have Python write to the descriptors 1 and 2 as they are now, with `errors` for what is no text."""
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        setattr(sys, name, open(descriptor, "w", encoding="utf-8", errors=errors, closefd=False))  # noqa: SIM115


def move(descriptor: int, number: int) -> None:
    """Let `number` be what `descriptor` was."""
    if descriptor != number:
        os.dup2(descriptor, number)
        os.close(descriptor)


def die_with_parent(number: signal.Signals) -> None:
    """Have this process sent a signal when its parent dies; what it starts itself has no such wish."""
    _set(_SET_PDEATHSIG, number)


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent dies."""
    _set(_SET_CHILD_SUBREAPER, 1)


def _set(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
