"""Makes private directories in places that other users share, and verifies that an existing one is really private."""

import os
import pwd
import shutil
import stat
from contextlib import suppress
from pathlib import Path


class NotPrivate(OSError):
    """Another user has made the directory, or could replace it.  The text says what is wrong and what to do."""


def claim(path: Path) -> None:
    """Make a directory of mode 0700, or use the existing one.  Raises: NotPrivate, OSError.

    Its name may be known, and its parent, such as /dev/shm, writable by everyone: the owner of the directory could
    replace what Ansible is about to execute.  If it is ours in a directory with the sticky bit, no other user can
    replace it.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)
    check(path)


def check(path: Path) -> None:
    """Verify that a directory is private, or can be made so.  Raises: NotPrivate, OSError."""
    if os.path.lexists(path) and (problem := _problem(path.lstat())) is not None:
        raise NotPrivate(f"{path} {problem}, so that files of runs are not safe there. Remove it, or set DAOS_RUN_DIR.")
    if not path.parent.exists():
        return  # it will be made by us, too
    parent = path.parent.stat()
    if parent.st_mode & stat.S_IWOTH and not parent.st_mode & stat.S_ISVTX:
        raise NotPrivate(f"Everybody can rename {path}. Set the sticky bit (chmod +t {path.parent}) or DAOS_RUN_DIR.")
    if parent.st_uid not in {0, os.geteuid()}:
        raise NotPrivate(f"{path.parent} belongs to {_name(parent.st_uid)}, who can exchange {path}. Set DAOS_RUN_DIR.")


def _problem(found: os.stat_result) -> str | None:
    """Return why a directory is not private, as a predicate; None if it is."""
    if not stat.S_ISDIR(found.st_mode):
        return "is not a directory"
    if found.st_uid != os.geteuid():
        return f"belongs to {_name(found.st_uid)}"
    if found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        return f"has mode {stat.S_IMODE(found.st_mode):04o} instead of 0700"
    return None


def _name(uid: int) -> str:
    try:
        return f"user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"user {uid}"


def sockets(root: Path) -> Path:
    """Return the directory of the connections to hosts, beside that of the runs."""
    return root.with_name(f"{root.name}-ssh")


def remove(directory: Path) -> None:
    """Remove `directory` with its content, as far as possible; errors are ignored."""
    shutil.rmtree(directory, ignore_errors=True)
