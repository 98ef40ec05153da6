"""Host keys, in the format of OpenSSH's known_hosts.  Pure: no host is contacted here, see `runner.ssh.scan`.

What daos stores is a file for one host only: its lines are for every name, `*`, and have no comments.
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_ssh_public_key

from runner.ssh import keys

TYPES = (
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "ssh-rsa",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
)
FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")
AUTHORITY = "@cert-authority"
HASHED = "|1|"  # the prefix of a name that is stored as an HMAC with a salt


class BadLine(Exception):
    """A line that is not accepted; the text says why, and `code` names the rule."""

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code


@dataclass(frozen=True)
class HostKey:
    """A public key: a host's own, or that of a certificate authority for host keys.  `data` is base64."""

    type: str
    data: str
    is_authority: bool = False

    @property
    def line(self) -> str:
        """The key as a line of known_hosts for every name."""
        return f"{AUTHORITY if self.is_authority else ''} * {self.type} {self.data}".strip()

    @property
    def fingerprint(self) -> str:
        """The fingerprint that ssh-keygen shows."""
        return keys.fingerprint(f"* {self.type} {self.data}")


def stored(text: str | None) -> list[HostKey]:
    """Return the keys in a host's `known_hosts` column, which daos or ssh has written."""
    lines = [line.split() for line in (text or "").splitlines()]
    return [HostKey(line[-2], line[-1], is_authority=line[0] == AUTHORITY) for line in lines if len(line) > 2]  # noqa: PLR2004


def columns(pinned: Iterable[HostKey]) -> dict[str, str | None]:
    """Return a host's columns for these keys, without duplicates: the first host key's fingerprint, and the file."""
    unique = list(dict.fromkeys(pinned))
    own = [key.fingerprint for key in unique if not key.is_authority]
    return {
        "host_key_fingerprint": own[0] if own else None,
        "known_hosts": "".join(f"{key.line}\n" for key in unique) or None,
    }


def has_authority(text: str | None) -> bool:
    """Whether a host's `known_hosts` column has the key of an authority."""
    return any(key.is_authority for key in stored(text))


def read(text: str, names: Collection[str]) -> list[HostKey]:
    """Return the keys that a user enters for the host with these `names`.

    `text` has lines of known_hosts, or public keys without a name.  Raises: BadLine.
    """
    found = []
    for number, line in enumerate(text.split("\n"), 1):
        fields = line.split()
        if not fields or fields[0].startswith("#"):
            continue
        try:
            found.append(_read_line(fields, names))
        except BadLine as problem:
            raise BadLine(problem.code, f"line {number} {problem}") from problem
    if not found:
        raise BadLine("EMPTY", "has no key")
    return found


def _read_line(fields: list[str], names: Collection[str]) -> HostKey:
    is_authority = fields[0] == AUTHORITY
    if fields[0].startswith("@"):
        if not is_authority:
            raise BadLine("MARKER", f"has another marker than {AUTHORITY}")
        fields = fields[1:]
    patterns = "*"
    if fields and fields[0] not in TYPES:
        patterns, *fields = fields
    if len(fields) < 2 or fields[0] not in TYPES:  # noqa: PLR2004 - type and key
        raise BadLine("KEY_TYPE", f"has no key of one of the types {', '.join(TYPES)}")
    if not _is_named(patterns, names):
        raise BadLine("NAME", f"is not for this host: it has none of the names {', '.join(sorted(names))}")
    return HostKey(*_checked(*fields[:2]), is_authority)


def _checked(kind: str, data: str) -> tuple[str, str]:
    try:
        raw = base64.b64decode(data, validate=True)
        load_ssh_public_key(f"{kind} {data}".encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise BadLine("KEY", "has a key that is damaged, or not of the type that is said") from error
    return kind, base64.b64encode(raw).decode()


def _is_named(patterns: str, names: Collection[str]) -> bool:
    """Whether patterns match a host with these names, as in sshd(8): `*`, `?`, `!`, and commas, or a hashed name."""
    if patterns.startswith(HASHED):
        return any(_is_hash_of(patterns, name) for name in names)
    is_meant = False
    for pattern in patterns.lower().split(","):
        if any(_fits(pattern.removeprefix("!"), name) for name in names):
            if pattern.startswith("!"):
                return False
            is_meant = True
    return is_meant


def _is_hash_of(hashed: str, name: str) -> bool:
    try:
        salt, digest = (base64.b64decode(part, validate=True) for part in hashed.removeprefix(HASHED).split("|"))
    except ValueError:
        return False
    return hmac.compare_digest(hmac.digest(salt, name.encode(), hashlib.sha1), digest)


def _fits(pattern: str, name: str) -> bool:
    # Not with fnmatch or a regular expression: brackets are not classes here, and many `*` could take forever.
    reached = {0}  # the lengths of the name that the pattern can have matched so far
    for sign in re.sub(r"\*+", "*", pattern):
        if sign == "*":
            reached = set(range(min(reached), len(name) + 1))
        else:
            reached = {at + 1 for at in reached if at < len(name) and sign in {"?", name[at]}}
        if not reached:
            return False
    return len(name) in reached


def names_of(address: str, port: int) -> list[str]:
    """Return the names of a host in known_hosts."""
    name = address.lower()
    return [name, f"[{name}]:{port}"]
