"""Room for the database: which errors say that there is none, and what can be known before somebody gets one."""

import os
import sqlite3
import time
from pathlib import Path

from sqlalchemy.exc import DBAPIError

LEAST_ROOM = 1024 * 1024  # bytes of a file system; the next change may take as much
RETRY_INTERVAL = 5.0  # seconds between attempts to write where the last one found no room

# The second one is that of the index of changes, `-shm`, which SQLite makes larger before it writes a change.
SQLITE_FULL = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE}
POSTGRESQL_FULL = "53100"  # disk_full


def is_full(error: BaseException | None) -> bool:
    """Whether the database has refused to write because its storage is full."""
    if not isinstance(error, DBAPIError):
        return False
    if isinstance(error.orig, sqlite3.Error):
        return getattr(error.orig, "sqlite_errorcode", None) in SQLITE_FULL
    return getattr(error.orig, "sqlstate", None) == POSTGRESQL_FULL


class Storage:
    """What is known of a database's storage; `path` is its file, where it is one on this machine."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._retry_at: float | None = None  # by the monotonic clock; None: the last write found room

    def note(self, error: BaseException) -> None:
        """Note that a write has failed, whatever the reason."""
        if is_full(error):
            self._retry_at = time.monotonic() + RETRY_INTERVAL

    def note_room(self) -> None:
        """Note that something was written."""
        self._retry_at = None

    @property
    def has_room(self) -> bool:
        """Whether the last write found room, and the file system has some."""
        return self._retry_at is None and self._has_free_blocks()

    @property
    def is_due(self) -> bool:
        """Whether it is time to try again to write: without that nobody learns that there is room again."""
        return self._retry_at is not None and time.monotonic() >= self._retry_at

    def _has_free_blocks(self) -> bool:
        if self._path is None:
            return True
        try:
            found = os.statvfs(self._path.parent)
        except OSError:
            return True  # its file cannot be read either, which is told as that
        free = found.f_bfree if os.geteuid() == 0 else found.f_bavail
        return found.f_blocks == 0 or free * found.f_frsize >= LEAST_ROOM  # some network file systems have no numbers
