"""Secrets at rest: a keyring in the data directory, and the type of a value that must not be printed."""

import base64
import hmac
import os
import secrets
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile

from cryptography.fernet import Fernet, InvalidToken


class Secret:
    """A value that prints as `********`; `reveal()` gives it."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The value itself, for the one place that has to hand it on."""
        return self._value

    def __repr__(self) -> str:
        return "********"


class UnknownKey(Exception):
    """A secret was encrypted with a key that the keyring does not have."""


class Keyring:
    """Keys by id; the first one encrypts, all of them decrypt.

    A ciphertext is `<key id>:<Fernet token>`, so that keys can be rotated while both are in use.
    """

    def __init__(self, keys: dict[str, str]) -> None:
        if not keys:
            raise ValueError("a keyring needs a key")
        self._fernets = {key_id: Fernet(key) for key_id, key in keys.items()}
        # Of its own: one key for two algorithms is one too few.
        self._mac_keys = {
            key_id: hmac.digest(base64.urlsafe_b64decode(key), b"daos fingerprint", "sha256")
            for key_id, key in keys.items()
        }
        self._current = next(iter(keys))

    @classmethod
    def open(cls, path: Path) -> "Keyring":
        """The keyring in the file at `path`, a line `<key id> <key>` each; made with one new key where there is none.

        Raises: OSError where it cannot be read or made, ValueError where it is no keyring.
        """
        if not path.exists():
            with suppress(FileExistsError):  # another process was quicker, and its key counts
                write_private(path, f"{secrets.token_hex(4)} {Fernet.generate_key().decode()}\n")
        return cls.read(path)

    @classmethod
    def read(cls, path: Path) -> "Keyring":
        """The keyring in the file at `path`, which is there.

        Raises: OSError where it cannot be read, ValueError where it is no keyring.
        """
        lines = path.read_text(encoding="ascii").splitlines()
        return cls({key_id: key for key_id, _, key in (line.partition(" ") for line in lines if line)})

    def encrypt(self, secret: Secret) -> str:
        """`secret` under the first key."""
        return f"{self._current}:{self._fernets[self._current].encrypt(secret.reveal().encode()).decode()}"

    def decrypt(self, ciphertext: str) -> Secret:
        """The secret in `ciphertext`.  Raises: UnknownKey where its key is not here or is another one."""
        key_id, _, token = ciphertext.partition(":")
        try:
            return Secret(self._fernets[key_id].decrypt(token).decode())
        except (KeyError, InvalidToken) as error:
            raise UnknownKey(key_id) from error

    def fingerprint(self, secret: Secret) -> str:
        """What tells `secret` from others without telling anything of it: `<key id>:<HMAC-SHA-256>`.

        A plain hash would give a short password to whoever has the database and tries all of them.
        """
        return f"{self._current}:{self._mac(self._current, secret)}"

    def matches(self, fingerprint: str, secret: Secret) -> bool:
        """Whether the fingerprint is of `secret`; False too where its key is not here, for nobody can tell."""
        key_id, _, mac = fingerprint.partition(":")
        return key_id in self._mac_keys and hmac.compare_digest(mac, self._mac(key_id, secret))

    def _mac(self, key_id: str, secret: Secret) -> str:
        return hmac.digest(self._mac_keys[key_id], secret.reveal().encode(), "sha256").hex()


def write_private(path: Path, content: str) -> None:
    """Create `path` with mode 0600, never a moment wider, complete or not at all.  Raises: FileExistsError."""
    # A file of this writer's own: two that shared one would link what the other has only begun.
    with NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, prefix=f"{path.name}.") as new:  # mode 0600
        new.write(content)
        new.flush()
        os.fsync(new.fileno())
        # A link, unlike a rename, refuses to replace a file that came in between.
        path.hardlink_to(new.name)
