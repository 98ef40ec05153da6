"""The commands `daos secrets …`: a new key for secrets, while servers go on."""

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

LATE = 60.0  # seconds after which a file that machines share is the new one for all of them


async def rotate(settings: Settings) -> None:
    """Encrypt everything with a new key; where some is not under the first one yet, with that.

    Raises: CannotStart, CannotRotate.
    """
    with _reserved(settings) as file:
        async with opened(settings, keyring(settings)) as db:
            if not await _renewed(settings, db):
                with _writable(settings):
                    file.put_new_key()
                await _tell(settings, db, "rotateSecrets", [db.keyring.ids[0]])
                print(f"The new key is {db.keyring.ids[0]}.", flush=True)
                print(f"{await rotation.renew(db)} secrets were encrypted anew.")
            await _name_unreadable(db)


async def renew(settings: Settings) -> None:
    """Encrypt everything with the first key that there is.  Raises: CannotStart, CannotRotate."""
    _file(settings)
    async with opened(settings, keyring(settings)) as db:
        if not await _renewed(settings, db):
            print(f"Everything is encrypted with key {db.keyring.ids[0]}.")
        await _name_unreadable(db)


async def _renewed(settings: Settings, db: Database) -> bool:
    renewed = await rotation.renew(db)
    if renewed:
        await _tell(settings, db, "renewSecrets", [db.keyring.ids[0]])
        print(f"{renewed} secrets were encrypted anew with key {db.keyring.ids[0]}, which was there already.")
        print("No new key was made.")
    return renewed > 0


async def _name_unreadable(db: Database) -> None:
    left = await rotation.unreadable(db)
    if left:
        raise CannotRotate(f"{sum(left.values())} secrets cannot be read, for want of their keys: {', '.join(left)}")


async def retire(settings: Settings) -> None:
    """Remove all keys but the first.  Raises: CannotStart, CannotRotate."""
    with _reserved(settings) as file:
        keys = keyring(settings)
        # A request that was answered from the old file may not have written yet what it has encrypted.
        wait = settings.operation_timeout + LATE - file.age
        if len(keys.ids) > 1 and wait > 0:
            raise CannotRotate(
                f"the keys were changed just now, and servers may still use the old ones for {wait:.0f} s"
            )
        async with opened(settings, keys) as db:
            with _writable(settings):
                retired, dropped = await rotation.retire(db, file)
            if retired:
                await _tell(settings, db, "retireSecrets", retired)
    print(f"Retired: {', '.join(retired)}." if retired else "There is one key only.")
    if dropped:
        print(f"{dropped} idempotency keys went with them: a request that comes again counts as a new one.")


async def _tell(settings: Settings, db: Database, what: str, keys: list[str]) -> None:
    """Put it into the audit, with the ids of the keys."""
    retention = timedelta(days=settings.audit_days)
    await audit.Deed(audit.COMMAND_LINE, None, None, what, keys, retention).done(db)


@contextmanager
def _reserved(settings: Settings) -> Iterator[KeyFile]:
    """The keyring's file, for this command alone.  It has to be there: a new one could read nothing."""
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
