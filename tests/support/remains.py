"""What a server and its runs have on this machine at one moment, counted by name, so that two moments can be compared.

Both ends of an ssh connection are seen: the host is this machine.
"""

import contextlib
import os
import pwd
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from daos.settings import Settings
from tests.support.server import Server, processes_with, wait_until
from tests.support.sshd import SshServer

DATABASE = {"daos.db", "daos.db-shm", "daos.db-wal"}


@dataclass(frozen=True)
class Place:
    """Where to look.  `temporary` are the directories for temporary files of the server and of the host."""

    server: Server
    sshd: SshServer
    projects: Sequence[str]
    temporary: Sequence[Path]

    def remains(self) -> Counter[str]:
        """All that there is, by what it is and its name; what differs each time in a name is left out."""
        server, warm = self.server, self.server.warm_pid
        return Counter(
            [
                *(f"process of the server: {command(pid)}" for pid in self.processes()),
                *(f"process on the host: {process.command}" for process in self.sshd.processes()),
                *(f"sshd of the host: {process.name}" for process in self.sshd.connections()),
                *(f"descriptor of the server: {name}" for name in _descriptors(server.pid)),
                *(f"descriptor of the warm process: {name}" for name in _descriptors(warm)),
                *(f"file: {name}" for name in self._files()),
            ]
        )

    def left(self, before: Counter[str], seconds: float) -> Counter[str]:
        """What there is more of than `before`, when it has had so many seconds to go away."""
        with contextlib.suppress(AssertionError):
            wait_until(lambda: self.remains() <= before, "nothing is left", seconds)
        return self.remains() - before

    def processes(self) -> set[int]:
        """The pids of the server and of all that it has started, dead ones that nobody took leave of too."""
        sockets = f"ssh: {self.server.run_root}"  # ssh's masters write their title over their environment
        masters = {pid for pid in _pids() if sockets in command(pid)}
        return {*_descendants(self.server.pid), *self._with_cookie(), *masters}

    def scratch(self, project: str) -> list[Path]:
        """The files of a project on the host that only a phase at work has."""
        return [path for path in self._files_of(project) if ".new" in path.suffixes or path.parent.name == "new"]

    def _with_cookie(self) -> set[int]:
        return set(processes_with(Settings(data_dir=self.server.data_dir).cookie))

    def _files(self) -> Iterator[str]:
        run_root = self.server.run_root
        roots = [self.server.data_dir, *run_root.parent.glob(f"{run_root.name}*"), *self.temporary]
        for path in [inside for root in roots for inside in [root, *root.rglob("*")] if inside.name not in DATABASE]:
            yield re.sub(r"/tmp\w{8}(?=/|$)", "/tmp*", str(path))
        for project in self.projects:
            yield from map(str, self._files_of(project))

    def _files_of(self, project: str) -> list[Path]:
        daos = Path(pwd.getpwuid(os.getuid()).pw_dir, ".daos")
        roots = [root for kind in ("projects", "state") for root in (daos / kind).glob(f"{project}*")]
        return [path for root in roots for path in [root, *root.rglob("*")]]


def _pids() -> Iterator[int]:
    return (int(entry.name) for entry in Path("/proc").glob("[0-9]*"))


def command(pid: int) -> str:
    """The command line of a process, as far as there is one."""
    with contextlib.suppress(OSError):
        line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        return line or "a dead one"
    return "one that has gone"


def _descendants(pid: int) -> list[int]:
    if not Path(f"/proc/{pid}").exists():
        return []
    with contextlib.suppress(OSError):
        children = [
            int(child) for file in Path(f"/proc/{pid}/task").glob("*/children") for child in file.read_text().split()
        ]
        return [pid, *(deeper for child in children for deeper in _descendants(child))]
    return []


def _descriptors(pid: int | None) -> Iterator[str]:
    for descriptor in Path(f"/proc/{pid}/fd").iterdir() if pid is not None else ():
        with contextlib.suppress(OSError):
            yield re.sub(r"\[\d+\]|(?<=/tmp)\w{8}", "", str(descriptor.readlink()))
