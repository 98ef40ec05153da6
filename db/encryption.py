"""Secrets at rest: a keyring in the data directory, and the type of a value that must not be printed."""

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


class _Key:
    def __init__(self, text: str) -> None:
        self.fernet = Fernet(text)
        # Of its own: one key for two algorithms is one too few.
        self._mac_key = hmac.digest(base64.urlsafe_b64decode(text), b"daos fingerprint", "sha256")

    def mac(self, secret: Secret) -> str:
        return hmac.digest(self._mac_key, secret.reveal().encode(), "sha256").hex()


class Keyring:
    """Keys by id; the first one encrypts, all of them decrypt.

    A ciphertext is `<key id>:<Fernet token>`, so that keys can be rotated while both are in use.  The keyring of a file
    is read again where the file has changed before something is encrypted, and where something names a key that it does
    not have.  A file that cannot be read by then leaves it as it is.
    """

    def __init__(self, keys: Mapping[str, str]) -> None:
        self._keys = _checked(keys)
        self._path: Path | None = None
        self._stamp: _Stamp | None = None

    @classmethod
    def open(cls, path: Path) -> Self:
        """The keyring in the file at `path`, a line `<key id> <key>` each; made with one new key where there is none.

        Raises: OSError where it cannot be read or made, ValueError where it is no keyring.
        """
        if not path.exists():
            with suppress(FileExistsError):  # another process was quicker, and its key counts
                write_private(path, new_line())
        return cls.read(path)

    @classmethod
    def read(cls, path: Path) -> Self:
        """The keyring in the file at `path`, which is there.

        Raises: OSError where it cannot be read, ValueError where it is no keyring.
        """
        stamp = _stamp(path)  # before the content: a change in between is seen the next time
        keyring = cls(_parse(path.read_text(encoding="ascii")))
        keyring._path, keyring._stamp = path, stamp
        return keyring

    @property
    def ids(self) -> list[str]:
        """The keys' ids, the one that encrypts first."""
        self._follow_file()
        return list(self._keys)

    def encrypt(self, secret: Secret) -> str:
        """`secret` under the first key."""
        key_id, key = self._current()
        return f"{key_id}:{key.fernet.encrypt(secret.reveal().encode()).decode()}"

    def decrypt(self, ciphertext: str) -> Secret:
        """The secret in `ciphertext`.  Raises: UnknownKey where its key is not here or is another one."""
        key_id, _, token = ciphertext.partition(":")
        try:
            return Secret(self._of(key_id).fernet.decrypt(token).decode())
        except (KeyError, InvalidToken) as error:
            raise UnknownKey(key_id) from error

    def fingerprint(self, secret: Secret) -> str:
        """What tells `secret` from others without telling anything of it: `<key id>:<HMAC-SHA-256>`.

        A plain hash would give a short password to whoever has the database and tries all of them.
        """
        key_id, key = self._current()
        return f"{key_id}:{key.mac(secret)}"

    def matches(self, fingerprint: str, secret: Secret) -> bool:
        """Whether the fingerprint is of `secret`; False too where its key is not here, for nobody can tell."""
        key_id, _, mac = fingerprint.partition(":")
        try:
            return hmac.compare_digest(mac, self._of(key_id).mac(secret))
        except KeyError:
            return False

    def _current(self) -> tuple[str, _Key]:
        self._follow_file()
        return next(iter(self._keys.items()))

    def _of(self, key_id: str) -> _Key:
        """Raises: KeyError."""
        if key_id not in self._keys:
            self._read_again()  # whatever its times say: a file of another machine may show them late
        return self._keys[key_id]

    def _follow_file(self) -> None:
        if self._path is not None and _stamp(self._path) != self._stamp:
            self._read_again()

    def _read_again(self) -> None:
        if self._path is None:
            return
        self._stamp = _stamp(self._path)  # also where it cannot be read: said once, and not at each secret
        try:
            self._keys = _checked(_parse(self._path.read_text(encoding="ascii")))
        except (OSError, ValueError) as error:
            logger.error("the keyring %s cannot be read again, the keys from before are used: %s", self._path, error)


_Stamp = tuple[int, ...]


def _stamp(path: Path) -> _Stamp | None:
    """What changes when the file does."""
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
    """A new key, as the file of a keyring has it."""
    return f"{secrets.token_hex(4)} {Fernet.generate_key().decode()}\n"


def write_private(path: Path, content: str) -> None:
    """Create `path` with mode 0600, never a moment wider, complete or not at all.  Raises: FileExistsError."""
    # A file of this writer's own: two that shared one would link what the other has only begun.
    with NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, prefix=f"{path.name}.") as new:  # mode 0600
        new.write(content)
        new.flush()
        os.fsync(new.fileno())
        # A link, unlike a rename, refuses to replace a file that came in between.
        path.hardlink_to(new.name)
