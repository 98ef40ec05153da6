"""A run's own directory on the server: made for one play, private, and gone afterwards."""

import json
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import anyio.to_thread

from runner.private import claim, remove
from runner.spec import run as content
from runner.spec.run import Paths, Project, Timeouts
from runner.ssh.key_in_memory import shown

KNOWN_HOSTS = "known_hosts"


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


def sweep(root: Path) -> int:
    """Remove what runs of a killed server left below `root`; gives how many."""
    left = list(root.iterdir()) if root.is_dir() else []
    for directory in left:
        remove(directory)
    return len(left)
