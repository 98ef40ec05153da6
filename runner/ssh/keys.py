"""SSH keys: the private key that a run logs in with, and the fingerprint of a host key."""

import base64
import hashlib
import os
import re
import stat
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_ssh_private_key

from db.models import FailureReason

MAX_KEY_SIZE = 64 * 1024  # bytes; so that a log file in place of a key is not read to its end
OPENSSH_HEADER = b"-----BEGIN OPENSSH PRIVATE KEY-----"


_PUBLIC_KEY = re.compile(rb"\s*(?:ssh-|ecdsa-sha2-|sk-)[a-z0-9@.-]+ AAAA")


class KeyProblem(Exception):
    """A private key that ssh cannot use; the text is a sentence for people."""

    def __init__(self, reason: FailureReason, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason


def check_private_key(path: Path) -> None:
    """Check that ssh can use the key file at `path`.  Blocking: it reads a file.  Raises: KeyProblem."""
    data = _read(path)
    load = load_ssh_private_key if data.lstrip().startswith(OPENSSH_HEADER) else load_pem_private_key
    try:
        load(data, password=None)
    except TypeError as error:
        # cryptography raises this for a key with a passphrase if it is given none.
        raise _invalid(
            path, "is protected by a passphrase; remove it with ssh-keygen -p, or store the key with createSshKey"
        ) from error
    except UnsupportedAlgorithm as error:
        raise _invalid(path, "is of a type that is not supported; use Ed25519, RSA or ECDSA") from error
    except ValueError as error:
        raise _invalid(path, "is not a private key; set sshKeyPath to one, as ssh-keygen makes it") from error


def _read(path: Path) -> bytes:
    not_found = FailureReason.SSH_KEY_NOT_FOUND
    try:
        # Non-blocking, so that opening a named pipe does not wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise KeyProblem(
            not_found, f"The SSH key file '{path}' does not exist on the server; put it there, or change sshKeyPath."
        ) from error
    except OSError as error:
        raise KeyProblem(
            not_found, f"The SSH key file '{path}' cannot be read on the server: {error.strerror}."
        ) from error
    try:
        state = os.fstat(descriptor)
        if not stat.S_ISREG(state.st_mode):
            raise _invalid(path, "is not a regular file; set sshKeyPath to a private key")
        data = os.read(descriptor, MAX_KEY_SIZE)
        if _PUBLIC_KEY.match(data):
            raise _invalid(
                path, "is a public key; set sshKeyPath to the private key, most often the same path without .pub"
            )
        # ssh ignores such a key, and then only reports "Permission denied".
        if state.st_uid == os.getuid() and state.st_mode & 0o077:
            raise _invalid(path, f"is open to other users, and ssh refuses it; run: chmod 600 {path}")
        if state.st_size > MAX_KEY_SIZE:
            raise _invalid(path, "is not a private key; set sshKeyPath to one, as ssh-keygen makes it")
        return data
    finally:
        os.close(descriptor)


def _invalid(path: Path, what: str) -> KeyProblem:
    return KeyProblem(FailureReason.SSH_KEY_INVALID, f"The SSH key file '{path}' {what}.")


def fingerprint(known_hosts_line: str) -> str:
    """Return ssh-keygen's fingerprint of the key in a line `<name> <type> <base64>` of known_hosts."""
    key = base64.b64decode(known_hosts_line.split()[2])
    digest = base64.b64encode(hashlib.sha256(key).digest()).decode().rstrip("=")
    return f"SHA256:{digest}"
