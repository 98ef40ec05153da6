"""A server and this machine as its host, with a home directory of their own, which chooses the version of compose."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support import compose_versions, sshd
from tests.support.client import Client
from tests.support.server import Server
from tests.support.sshd import SshServer

TRANSPORTS = ("LOCAL", "SSH")
SETTINGS = {"DAOS_SETTLE_SECONDS": "0.5"}


@dataclass
class Site:
    """The server, and the sshd by which it reaches the machine."""

    home: Path
    server: Server
    sshd: SshServer

    @property
    def root(self) -> Path:
        """The parent of all project directories."""
        return self.home / ".daos" / "projects"

    async def new_host(self, client: Client, transport: str) -> str:
        """The machine as a new host, by one of TRANSPORTS."""
        return await (client.local_host() if transport == "LOCAL" else client.ssh_host(self.sshd))


@contextlib.contextmanager
def serve_site(directory: Path, address: str, compose: str, settings: Mapping[str, str]) -> Iterator[Site]:
    """A site in `directory`, with its sshd at `address` and one of COMPOSES of tests.support.compose_versions."""
    home = compose_versions.make_home(directory, compose)
    logins = directory / "sshd"
    logins.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("DAOS_", "DOCKER_CONFIG"))}
    server = Server(directory, {**SETTINGS, **settings}, environment={**environment, "HOME": str(home)})
    with sshd.serve_ssh(logins, address, environment={"HOME": str(home)}) as ssh_server:
        try:
            server.start()
            yield Site(home, server, ssh_server)
        finally:
            server.close()
