"""Separates a forked process from its parent: its environment, streams, descriptors, and signals.  Linux only."""

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
    """Replace the state that Python has cached from the parent process."""
    tempfile.tempdir = None
    replace_environment(environment)
    open_streams("backslashreplace")


def replace_environment(environment: Mapping[str, str]) -> None:
    """Make `environment` the whole environment that programs inherit from this process."""
    os.environ.clear()
    os.environ.update(environment)


def open_streams(errors: str) -> None:
    """Open stdout and stderr again on the current descriptors 1 and 2; `errors` is the handler for encoding errors."""
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        setattr(sys, name, open(descriptor, "w", encoding="utf-8", errors=errors, closefd=False))  # noqa: SIM115


def move(descriptor: int, number: int) -> None:
    """Move `descriptor` to `number`, and close the old one."""
    if descriptor != number:
        os.dup2(descriptor, number)
        os.close(descriptor)


def die_with_parent(number: signal.Signals) -> None:
    """Have the kernel signal this process when its parent dies; its own children do not inherit this."""
    _set(_SET_PDEATHSIG, number)


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent dies."""
    _set(_SET_CHILD_SUBREAPER, 1)


def _set(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
