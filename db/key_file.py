"""Changes to the file of a keyring while other processes read it."""

import fcntl
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from db.encryption import new_line


class Busy(Exception):
    """Another process is changing the file."""


class KeyFile:
    """The file of a keyring, to be changed.  Every method raises OSError if the file cannot be read or written."""

    def __init__(self, path: Path) -> None:
        self._path = path.resolve(strict=True)  # the file itself is replaced, not a link to it

    @property
    def age(self) -> float:
        """Seconds since the file was last changed."""
        return time.time() - self._path.stat().st_mtime

    @contextmanager
    def reserved(self) -> Iterator[None]:
        """Lock the file, so that no process overwrites the change of another.  Raises: Busy."""
        with self._path.with_name(f"{self._path.name}-lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise Busy from error
            yield

    def put_new_key(self) -> None:
        """Add a new key as the first one."""
        self._replace(new_line() + self._path.read_text(encoding="ascii"))

    def keep_first_key(self) -> None:
        """Remove all keys but the first."""
        first = next(line for line in self._path.read_text(encoding="ascii").splitlines() if line)
        self._replace(f"{first}\n")

    def _replace(self, content: str) -> None:
        """Replace the file atomically, with the same owner and mode, so that its readers can still read it."""
        before = self._path.stat()
        directory, prefix = self._path.parent, f"{self._path.name}."
        descriptor, name = tempfile.mkstemp(dir=directory, prefix=prefix)  # mode 0600
        try:
            with os.fdopen(descriptor, "w", encoding="ascii") as new:
                new.write(content)
                new.flush()
                os.fchown(descriptor, before.st_uid, before.st_gid)
                os.fchmod(descriptor, stat.S_IMODE(before.st_mode))
                os.fsync(descriptor)
            Path(name).replace(self._path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        _sync(directory)  # before anything is encrypted with a key that a power failure could lose


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
