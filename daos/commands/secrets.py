"""The commands `daos secrets …`: replace the key that encrypts secrets, while servers keep running."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta

from daos.app import CannotStart, key_path, keyring, opened
from daos.settings import Settings
from db import rotation
from db.database import Database
from db.key_file import Busy, KeyFile
from db.rotation import CannotRotate
from resolvers import audit

LATE = 60.0  # seconds until every machine that shares the key file is sure to read the new content


async def rotate(settings: Settings) -> None:
    """Encrypt everything with a new key, or with the existing first key if an earlier rotation was interrupted.

    Raises: CannotStart, CannotRotate.
    """
    with _reserved(settings) as file:
        async with opened(settings, keyring(settings)) as db:
            if not await _renewed(settings, db):
                with _writable(settings):
                    file.put_new_key()
                await _audit(settings, db, "rotateSecrets", [db.keyring.ids[0]])
                print(f"The new key is {db.keyring.ids[0]}.", flush=True)
                print(f"{await rotation.renew(db)} secrets were re-encrypted.")
            await _name_unreadable(db)


async def renew(settings: Settings) -> None:
    """Encrypt everything with the existing first key.  Raises: CannotStart, CannotRotate."""
    _file(settings)
    async with opened(settings, keyring(settings)) as db:
        if not await _renewed(settings, db):
            print(f"All secrets are already encrypted with key {db.keyring.ids[0]}.")
        await _name_unreadable(db)


async def _renewed(settings: Settings, db: Database) -> bool:
    renewed = await rotation.renew(db)
    if renewed:
        await _audit(settings, db, "renewSecrets", [db.keyring.ids[0]])
        print(f"{renewed} secrets were re-encrypted with the existing key {db.keyring.ids[0]}.")
        print("No new key was created.")
    return renewed > 0


async def _name_unreadable(db: Database) -> None:
    left = await rotation.unreadable(db)
    if left:
        raise CannotRotate(
            f"{sum(left.values())} secrets cannot be decrypted, their keys are missing: {', '.join(left)}"
        )


async def retire(settings: Settings) -> None:
    """Remove all keys except the first.  Raises: CannotStart, CannotRotate."""
    with _reserved(settings) as file:
        keys = keyring(settings)
        # A request that read the old file may not have committed yet what it encrypted with the old key.
        wait = settings.operation_timeout + LATE - file.age
        if len(keys.ids) > 1 and wait > 0:
            raise CannotRotate(
                f"the keys were just changed, and servers may still use the old ones; wait {wait:.0f} s and try again"
            )
        async with opened(settings, keys) as db:
            with _writable(settings):
                retired, dropped = await rotation.retire(db, file)
            if retired:
                await _audit(settings, db, "retireSecrets", retired)
    print(f"Retired: {', '.join(retired)}." if retired else "There is only one key.")
    if dropped:
        print(f"{dropped} idempotency keys were deleted with them: a repeated request counts as a new one.")


async def _audit(settings: Settings, db: Database, what: str, keys: list[str]) -> None:
    """Record the command in the audit log, with the ids of the keys."""
    retention = timedelta(days=settings.audit_days)
    await audit.Deed(audit.COMMAND_LINE, None, None, what, keys, retention).done(db)


@contextmanager
def _reserved(settings: Settings) -> Iterator[KeyFile]:
    """Lock the keyring file for this command.  It must exist: a new keyring could decrypt nothing."""
    file = _file(settings)
    with ExitStack() as stack:
        try:
            with _writable(settings):
                stack.enter_context(file.reserved())
        except Busy:
            raise CannotRotate(f"another command is changing the keys in {key_path(settings)}") from None
        yield file


def _file(settings: Settings) -> KeyFile:
    try:
        return KeyFile(key_path(settings))
    except OSError as error:
        raise CannotStart(f"the keyring {key_path(settings)} cannot be read: {error.strerror}") from error


@contextmanager
def _writable(settings: Settings) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CannotRotate(f"the keyring {key_path(settings)} cannot be changed: {error.strerror}") from error
