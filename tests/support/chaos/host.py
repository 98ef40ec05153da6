"""Hosts: each a real sshd with a home of its own and the `docker` of `tests.support.chaos.docker`."""

import contextlib
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.chaos import docker
from tests.support.chaos.docker import Docker, Left
from tests.support.sshd import SshServer, serve_ssh
from tests.support.stand_in_docker import install

PROGRAM = """#!/bin/sh
exec {python} -SEP {docker} "$@"
"""


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
    home = directory / "home"
    for inside in (home / "docker", directory / "sshd"):
        inside.mkdir(parents=True)
    logins = install(directory / "bin", PROGRAM.format(python=sys.executable, docker=docker.__file__))
    environment = {"HOME": str(home), **logins.environment}
    with serve_ssh(directory / "sshd", address, path=logins.path, environment=environment) as sshd:
        yield Host(sshd, home)
