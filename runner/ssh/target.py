"""The host of a run, and ssh's options for it."""

from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from db.encryption import Secret
from db.models import HostTransport
from runner.ssh.known_hosts import has_authority


@dataclass(frozen=True)
class Target:
    """The host of a run, with what is needed to connect to it."""

    id: UUID
    name: str
    transport: HostTransport
    address: str | None
    port: int
    user: str
    ssh_key_path: Path | None
    known_hosts: str | None  # pinned keys and authorities, as lines of known_hosts; None before the first contact
    ssh_key: Secret | None = None  # a stored key, instead of a path

    @property
    def has_key(self) -> bool:
        """Whether only the host's own key is used to log in."""
        return self.ssh_key_path is not None or self.ssh_key is not None


def connection_options(target: Target, known_hosts: Path) -> list[str]:
    """Return ssh's options for verifying the target and for the key to log in with."""
    options = {
        "BatchMode": "yes",
        # "accept-new" would also accept a plain key if only a certificate authority is known.
        "StrictHostKeyChecking": "accept-new" if target.known_hosts is None else "yes",
        "UserKnownHostsFile": str(known_hosts),
        "GlobalKnownHostsFile": "none",
        # The key is pinned for the host, not for its address: a host with a new address keeps it.
        # A certificate is for the address, by which the authority identifies the host.
        "HostKeyAlias": (target.address or "").lower() if has_authority(target.known_hosts) else str(target.id),
        "UpdateHostKeys": "no",
    }
    if target.has_key:
        options["IdentitiesOnly"] = "yes"
    # -F none: the login user's own ~/.ssh/config must not change where a run goes.
    return ["-F", "none", *(f"-o{name}={value}" for name, value in options.items())]
