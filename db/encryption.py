"""Encryption of secrets at rest: the keyring in the data directory, and the type of values that must not be printed."""

import base64
import hmac
import logging
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Self

from cryptography.fernet import Fernet, InvalidToken

logger = logging.getLogger(__name__)


class Secret:
    """A value that prints as `********`; `reveal()` returns it."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the value itself, for the one place that has to pass it on."""
        return self._value

    def __repr__(self) -> str:
        return "********"


class UnknownKey(Exception):
    """A secret was encrypted with a key that the keyring does not have."""


class _Key:
    def __init__(self, text: str) -> None:
        self.fernet = Fernet(text)
        # A separate key: one key must not serve two algorithms.
        self._mac_key = hmac.digest(base64.urlsafe_b64decode(text), b"daos fingerprint", "sha256")

    def mac(self, secret: Secret) -> str:
        return hmac.digest(self._mac_key, secret.reveal().encode(), "sha256").hex()


class Keyring:
    """Keys by id.  The first one encrypts; all of them decrypt.

    A ciphertext is `<key id>:<Fernet token>`, so that keys can be rotated while both are in use.  A keyring that was
    opened from a file reads it again before it encrypts, if the file has changed, and whenever a ciphertext names an
    unknown key.  If the file cannot be read then, the keyring keeps its keys.
    """

    def __init__(self, keys: Mapping[str, str]) -> None:
        self._keys = _checked(keys)
        self._path: Path | None = None
        self._stamp: _Stamp | None = None

    @classmethod
    def open(cls, path: Path) -> Self:
        """Return the keyring in the file at `path`, with a line `<key id> <key>` for each key.

        A missing file is created with one new key.
        Raises: OSError if the file cannot be read or created, ValueError if it is not a keyring.
        """
        if not path.exists():
            with suppress(FileExistsError):  # another process was faster, and its key is used
                write_private(path, new_line())
        return cls.read(path)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return the keyring in the existing file at `path`.

        Raises: OSError if the file cannot be read, ValueError if it is not a keyring.
        """
        stamp = _stamp(path)  # before the content: a change in between is noticed the next time
        keyring = cls(_parse(path.read_text(encoding="ascii")))
        keyring._path, keyring._stamp = path, stamp
        return keyring

    @property
    def ids(self) -> list[str]:
        """The ids of the keys; the first one is the key that encrypts."""
        self._reload_if_changed()
        return list(self._keys)

    def encrypt(self, secret: Secret) -> str:
        """Return the ciphertext of `secret`, encrypted with the first key."""
        key_id, key = self._current()
        return f"{key_id}:{key.fernet.encrypt(secret.reveal().encode()).decode()}"

    def decrypt(self, ciphertext: str) -> Secret:
        """Return the secret in `ciphertext`.  Raises: UnknownKey if the keyring has no such key, or a different one."""
        key_id, _, token = ciphertext.partition(":")
        try:
            return Secret(self._of(key_id).fernet.decrypt(token).decode())
        except (KeyError, InvalidToken) as error:
            raise UnknownKey(key_id) from error

    def fingerprint(self, secret: Secret) -> str:
        """Return `<key id>:<HMAC-SHA-256>`, which distinguishes `secret` from others without revealing it.

        With a plain hash, anyone who has the database could find a short password by trying all of them.
        """
        key_id, key = self._current()
        return f"{key_id}:{key.mac(secret)}"

    def matches(self, fingerprint: str, secret: Secret) -> bool:
        """Return whether the fingerprint is that of `secret`; False if the keyring does not have its key."""
        key_id, _, mac = fingerprint.partition(":")
        try:
            return hmac.compare_digest(mac, self._of(key_id).mac(secret))
        except KeyError:
            return False

    def _current(self) -> tuple[str, _Key]:
        self._reload_if_changed()
        return next(iter(self._keys.items()))

    def _of(self, key_id: str) -> _Key:
        """Return the key with this id.  Raises: KeyError."""
        if key_id not in self._keys:
            self._reload()  # whatever its times are: a file of another machine may show them late
        return self._keys[key_id]

    def _reload_if_changed(self) -> None:
        if self._path is not None and _stamp(self._path) != self._stamp:
            self._reload()

    def _reload(self) -> None:
        if self._path is None:
            return
        self._stamp = _stamp(self._path)  # before the attempt: a failure is logged once, not for each secret
        try:
            self._keys = _checked(_parse(self._path.read_text(encoding="ascii")))
        except (OSError, ValueError) as error:
            logger.error("the keyring %s cannot be reloaded; the previous keys stay in use: %s", self._path, error)


_Stamp = tuple[int, ...]


def _stamp(path: Path) -> _Stamp | None:
    """Return a value that changes whenever the file changes; None if the file's status cannot be read."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _parse(text: str) -> dict[str, str]:
    return {key_id: key for key_id, _, key in (line.partition(" ") for line in text.splitlines() if line)}


def _checked(keys: Mapping[str, str]) -> dict[str, _Key]:
    if not keys:
        raise ValueError("a keyring needs a key")
    return {key_id: _Key(key) for key_id, key in keys.items()}


def new_line() -> str:
    """Return a new key as a line for the file of a keyring."""
    return f"{secrets.token_hex(4)} {Fernet.generate_key().decode()}\n"


def write_private(path: Path, content: str) -> None:
    """Create `path` atomically, with mode 0600 from the start.  Raises: FileExistsError."""
    # Each writer has its own temporary file: with a shared one, a writer could link what the other has only begun.
    with NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, prefix=f"{path.name}.") as new:  # mode 0600
        new.write(content)
        new.flush()
        os.fsync(new.fileno())
        # A link, unlike a rename, does not replace a file that was created in between.
        path.hardlink_to(new.name)
