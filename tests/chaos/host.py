"""Hosts: each a real sshd with a home of its own and the `docker` of `tests.chaos.docker`."""

import contextlib
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.chaos import docker
from tests.chaos.docker import Docker, Left
from tests.support.requirement import SYSTEM_DIRECTORIES
from tests.support.sshd import SshServer, serve_ssh

PROGRAM = """#!/bin/sh
exec {python} -SEP {docker} "$@"
"""
# Without this daos starts compose's own program, where this machine has one.
ASK_DOCKER = '{"cliPluginsExtraDirs": []}'


@dataclass(frozen=True)
class Word:
    """What the host itself says of one project: daos' marker there, and what docker was left with."""

    marker: dict[str, str]
    left: Left | None


@dataclass(frozen=True)
class Host:
    """A machine that is deployed to."""

    sshd: SshServer
    home: Path

    def word(self, project: str) -> Word:
        marker = {}
        with contextlib.suppress(FileNotFoundError):
            lines = (self.home / ".daos/state" / project / "run").read_text().splitlines()
            marker = dict(line.split("=", 1) for line in lines if "=" in line)
        return Word(marker, Docker(self.home).left(project))

    def journal(self) -> list[dict[str, str]]:
        """What was done here, in order."""
        with contextlib.suppress(FileNotFoundError):
            return [json.loads(line) for line in (self.home / "docker/journal").read_text().splitlines()]
        return []

    def scratch(self) -> list[Path]:
        """Files that only a run at work has."""
        return [*(self.home / ".daos").rglob("*.new"), *(self.home / "docker").glob("*.new")]


@contextmanager
def served(directory: Path, address: str) -> Iterator[Host]:
    """A host that listens at the address, with all its files in the directory."""
    home, program = directory / "home", directory / "bin/docker"
    for inside in (home / "docker", program.parent, directory / "sshd"):
        inside.mkdir(parents=True)
    program.write_text(PROGRAM.format(python=sys.executable, docker=docker.__file__))
    program.chmod(0o755)
    (program.parent / "config.json").write_text(ASK_DOCKER)
    environment = {"HOME": str(home), "DOCKER_CONFIG": str(program.parent)}
    path = f"{program.parent}:{SYSTEM_DIRECTORIES}"
    with serve_ssh(directory / "sshd", address, path=path, environment=environment) as sshd:
        yield Host(sshd, home)
