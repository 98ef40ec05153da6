"""A run's private directory on the server, made for one play and removed afterwards."""

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
    """Yield a new directory below `root` with the inventory and the delivery of `project`; remove it at the end."""
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
    directory = Path(tempfile.mkdtemp(dir=root))  # mode 0700; a short name, because sockets must have short paths
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
    """Return the host key that ssh has stored, as a line of known_hosts; None if it has received none."""
    lines = (directory / KNOWN_HOSTS).read_text().splitlines(keepends=True)
    return lines[0] if lines else None


def sweep(root: Path) -> int:
    """Remove the directories below `root` that runs of a killed server left, and return how many there were."""
    left = list(root.iterdir()) if root.is_dir() else []
    for directory in left:
        remove(directory)
    return len(left)
