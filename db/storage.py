"""Free space for the database: which errors mean that it is full, and how to detect that before one occurs."""

import os
import sqlite3
import time
from pathlib import Path

from sqlalchemy.exc import DBAPIError

LEAST_ROOM = 1024 * 1024  # bytes free in the file system; the next change may need as much
RETRY_INTERVAL = 5.0  # seconds between attempts to write while the storage is full

# SQLITE_IOERR_SHMSIZE concerns the index of the WAL, `-shm`, which SQLite extends before it writes a change.
SQLITE_FULL = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE}
POSTGRESQL_FULL = "53100"  # disk_full


def is_full(error: BaseException | None) -> bool:
    """Return whether the error means that the database could not write because its storage is full."""
    if not isinstance(error, DBAPIError):
        return False
    if isinstance(error.orig, sqlite3.Error):
        return getattr(error.orig, "sqlite_errorcode", None) in SQLITE_FULL
    return getattr(error.orig, "sqlstate", None) == POSTGRESQL_FULL


class Storage:
    """What is known about a database's storage; `path` is its file, if it is a file on this machine."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._retry_at: float | None = None  # by the monotonic clock; None: the last write found room

    def note(self, error: BaseException) -> None:
        """Record that a write failed, for whatever reason."""
        if is_full(error):
            self._retry_at = time.monotonic() + RETRY_INTERVAL

    def note_room(self) -> None:
        """Record that a write succeeded."""
        self._retry_at = None

    @property
    def has_room(self) -> bool:
        """Whether the last write found room and the file system has free space."""
        return self._retry_at is None and self._has_free_blocks()

    @property
    def is_due(self) -> bool:
        """Whether it is time to try a write again: without one, free space after a full storage is never detected."""
        return self._retry_at is not None and time.monotonic() >= self._retry_at

    def _has_free_blocks(self) -> bool:
        if self._path is None:
            return True
        try:
            found = os.statvfs(self._path.parent)
        except OSError:
            return True  # the file cannot be read either, which is reported as such
        free = found.f_bfree if os.geteuid() == 0 else found.f_bavail
        return found.f_blocks == 0 or free * found.f_frsize >= LEAST_ROOM  # some network file systems report zeros
