"""SSH keys: files of every kind, and the processes that have one open."""

import subprocess
from contextlib import suppress
from pathlib import Path

from runner.ssh.key_in_memory import NAME


def make_key(path: Path, *, kind: str = "ed25519", passphrase: str = "", pem: bool = False) -> Path:
    """A new private key of one of ssh-keygen's kinds; with `pem` in the format of OpenSSL."""
    form = ["-m", "PEM"] if pem else []
    command = ["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-f", str(path), *form]
    subprocess.run(command, check=True)
    return path


def holders(key: str) -> list[str]:
    """The pids of all processes that have this key open."""
    found = []
    for descriptor in Path("/proc").glob("[0-9]*/fd/*"):
        with suppress(OSError):
            if NAME in str(descriptor.readlink()) and descriptor.read_text() == key:
                found.append(descriptor.parts[2])
    return found
