"""Shared by the benchmarks of runs: an sshd on this machine with its Docker, a server, and a meter of CPU time."""

import contextlib
import json
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.docker import Docker, make_docker
from tests.support.requirement import SYSTEM_DIRECTORIES
from tests.support.server import Server
from tests.support.sshd import SshServer, serve_ssh
from tests.support.stand_in_docker import Logins, install

AT_ONCE = 8
COMPOSE_FILE = json.dumps(
    {
        "services": {
            "web": {
                "image": "demo:1",
                "command": ["httpd", "-f", "-p", "0"],
                "environment": {"VALUE": "${VALUE}"},
                "init": True,
                "network_mode": "bridge",
            }
        }
    }
)
# Answers every request of daos as if its one container were already running; does nothing else and starts no program.
NO_DOCKER = """#!/bin/sh
case "$*" in
    *version*) echo 27.0.0 ;;
    *'config --format json')
        while [ "$1" != --file ]; do shift; done
        while read -r line || [ -n "$line" ]; do printf '%s\\n' "$line"; done <"$2"
        ;;
    'image inspect '*) echo '= image sha256:0' ;;
    'ps '*) echo "0|0|False|$HOME/.daos/projects/${5##*=}" ;;
    'inspect '*)
        echo '= container {"id":"0","name":"/web-1","hash":"0","service":"web","image":"demo:1",' \\
            '"imageId":"sha256:0","state":"running","startedAt":"2026-01-31T12:00:00Z","ports":[""]}'
        ;;
esac
"""
# The one host stands for many.
SETTINGS = {
    "DAOS_SETTLE_SECONDS": "0.5",
    "DAOS_MAX_RUNS": str(AT_ONCE),
    "DAOS_MAX_RUNS_PER_HOST": str(AT_ONCE),
}


class Meter:
    """The CPU seconds of the processes in one cgroup."""

    def __init__(self, name: str) -> None:
        self._group = Path("/sys/fs/cgroup/cpuacct", f"daos-bench-{os.getpid()}-{name}")
        self._group.mkdir()

    @property
    def seconds(self) -> float:
        return int((self._group / "cpuacct.usage").read_text()) / 1e9

    @property
    def processes(self) -> list[int]:
        return [int(pid) for pid in (self._group / "cgroup.procs").read_text().split()]

    def inside(self, command: list[str]) -> list[str]:
        """The command, to run in the group."""
        return ["sh", "-c", f'echo $$ > {self._group}/cgroup.procs && exec "$@"', "sh", *command]

    def close(self) -> None:
        for pid in self.processes:
            with contextlib.suppress(OSError):
                Path("/sys/fs/cgroup/cpuacct/cgroup.procs").write_text(str(pid))
        with contextlib.suppress(OSError):
            self._group.rmdir()


@dataclass
class Site:
    """The host that everything is deployed to, and what is needed to connect to it."""

    directory: Path
    sshd: SshServer
    docker: Docker
    prefix: str = field(default_factory=lambda: f"bench-{secrets.token_hex(3)}")

    def projects(self, way: str, count: int) -> list[str]:
        return [f"{self.prefix}-{way}-{number}" for number in range(count)]

    def server(self, meter: Meter, settings: Mapping[str, str]) -> Server:
        """Return a server that deploys there, not started yet; `settings` override the usual ones."""
        command = meter.inside([sys.executable, "-m", "daos"])
        return Server(self.directory / "server", {**SETTINGS, **settings}, command)

    @property
    def temporary(self) -> Path:
        """The directory for temporary files of what the logins run."""
        return self.directory / "tmp"

    @property
    def ssh(self) -> list[str]:
        known_hosts = self.directory / "known_hosts"
        known_hosts.write_text(f"[{self.sshd.address}]:{self.sshd.port} {self.sshd.host_key}\n")
        options = {
            "ControlMaster": "auto",
            "ControlPersist": "600s",
            "ControlPath": f"{self.directory}/cp-%C",
            "UserKnownHostsFile": str(known_hosts),
            "IdentitiesOnly": "yes",
        }
        return ["-F", "none", *(f"-o{name}={value}" for name, value in options.items())]


@contextlib.contextmanager
def opened(*, no_docker: bool = False) -> Iterator[Site]:
    """Create a site; with `no_docker`, its docker command does nothing and reports success immediately."""
    with tempfile.TemporaryDirectory(prefix="db-", dir="/dev/shm") as name:
        directory = Path(name)
        for inside in ("sshd", "tmp"):
            (directory / inside).mkdir()
        logins = install(directory / "bin", NO_DOCKER) if no_docker else Logins(SYSTEM_DIRECTORIES, {})
        environment = {"TMPDIR": str(directory / "tmp"), **logins.environment}
        with serve_ssh(directory / "sshd", "127.0.9.1", path=logins.path, environment=environment) as sshd:
            try:
                yield Site(directory, sshd, make_docker())
            finally:
                shutil.rmtree("/tmp/daos-bench", ignore_errors=True)
