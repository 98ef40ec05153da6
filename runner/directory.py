"""A run's own directory on the server: made for one play, private, and gone afterwards."""

import json
import os
import pwd
import shutil
import stat
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import anyio.to_thread

from runner import project as content
from runner.identity import shown
from runner.project import Paths, Project, Timeouts

KNOWN_HOSTS = "known_hosts"


class NotPrivate(OSError):
    """A directory that somebody else has made, or could exchange.  The text is one sentence with the way out."""


def claim(path: Path) -> None:
    """Make a directory of mode 0700, or take the one that is there.  Raises: NotPrivate, OSError.

    Its name may be known, and its parent, such as /dev/shm, open to everybody: whoever owned it could exchange what
    Ansible is about to execute.  Where it is ours in a directory with the sticky bit, nobody else can replace it.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        found = path.lstat()
        problem = _problem(found)
        if problem is not None:
            raise NotPrivate(
                f"{path} {problem}, so that files of runs are not safe there. Remove it, or set DAOS_RUN_DIR."
            ) from None
    parent = path.parent.stat()
    if parent.st_mode & stat.S_IWOTH and not parent.st_mode & stat.S_ISVTX:
        raise NotPrivate(f"Everybody can rename {path}. Set the sticky bit (chmod +t {path.parent}) or DAOS_RUN_DIR.")
    if parent.st_uid not in {0, os.geteuid()}:
        raise NotPrivate(f"{path.parent} belongs to {_name(parent.st_uid)}, who can exchange {path}. Set DAOS_RUN_DIR.")


def _problem(found: os.stat_result) -> str | None:
    """What is wrong with a directory that is to be ours alone."""
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
    """The directory of the connections to hosts, beside that of the runs."""
    return root.with_name(f"{root.name}-ssh")


@asynccontextmanager
async def prepared(
    root: Path, project: Project, timeouts: Timeouts, settle: float, master: Path | None = None
) -> AsyncIterator[Path]:
    """A fresh directory below `root` with the inventory and the delivery of `project`; removed at the end."""
    with shown(project.target.ssh_key) as key:
        make = partial(_make, root, project, timeouts, settle, master=master, identity=key)
        directory = await anyio.to_thread.run_sync(make)
        try:
            yield directory
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(remove, directory)


def _make(
    root: Path, project: Project, timeouts: Timeouts, settle: float, *, master: Path | None, identity: Path | None
) -> Path:
    claim(root)
    directory = Path(tempfile.mkdtemp(dir=root))  # 0700; a short name, for sockets must have short paths
    try:
        paths = Paths(directory / "delivery", directory / KNOWN_HOSTS, directory, master, identity)
        (directory / "tmp").mkdir()
        paths.delivery.touch(mode=0o600)
        paths.delivery.write_bytes(content.delivery(project))
        paths.known_hosts.write_text(project.target.known_hosts or "")
        inventory = content.inventory(project, paths, timeouts, settle)
        (directory / "inventory.json").write_text(json.dumps(inventory))
    except BaseException:
        remove(directory)
        raise
    return directory


def pinned(directory: Path) -> str | None:
    """The host's key that ssh wrote down, as a line of known_hosts; None where it saw none."""
    lines = (directory / KNOWN_HOSTS).read_text().splitlines(keepends=True)
    return lines[0] if lines else None


def remove(directory: Path) -> None:
    """Remove `directory` and all in it, or what is left of it."""
    shutil.rmtree(directory, ignore_errors=True)


def sweep(root: Path) -> int:
    """Remove what runs of a killed server left below `root`; gives how many."""
    left = list(root.iterdir()) if root.is_dir() else []
    for directory in left:
        remove(directory)
    return len(left)
