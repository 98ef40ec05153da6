"""Rotation of encryption keys while servers run: encrypts all ciphertexts with the new key and retires older keys."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Column, ColumnElement, delete, func, select, tuple_, update

from db.database import Database
from db.encryption import UnknownKey
from db.key_file import KeyFile
from db.models import Base, IdempotencyKey

BATCH = 100  # rows that one transaction changes


class CannotRotate(Exception):
    """The keys were not changed; the message is one line for the person who asked for it."""


# Found by name, so that no new table is forgotten: a key that one of them needs must not be retired.
CIPHERTEXTS: Sequence[Column[Any]] = [
    column for table in Base.metadata.sorted_tables for column in table.columns if column.name.endswith("ciphertext")
]


async def renew(db: Database) -> int:
    """Encrypt every ciphertext with the first key, and return how many were encrypted with another.

    Repeats until a pass finds none: a server that has not yet read the new key may have added some.
    A ciphertext that no key of the keyring can decrypt is left as it is: see `unreadable`.
    """
    total = 0
    while renewed := sum([await _renew(db, column) for column in CIPHERTEXTS]):
        total += renewed
    return total


async def _renew(db: Database, column: Column[Any]) -> int:
    """Make one pass over a column in the order of the primary key, and return how many ciphertexts it replaced."""
    key = list(column.table.primary_key.columns)
    current = db.keyring.ids[0]
    statement = select(*key, column).where(*_is_not_of(column, current)).order_by(*key).limit(BATCH)
    renewed = 0
    last: tuple[Any, ...] | None = None
    while True:
        async with db.read() as session:
            rows = (await session.execute(statement if last is None else statement.where(tuple_(*key) > last))).all()
        if not rows:
            return renewed
        last = tuple(rows[-1][:-1])
        replacements = [(values, old, new) for *values, old in rows if (new := _reencrypted(db, old)) is not None]
        async with db.write() as session:
            for values, old, new in replacements:
                # Only if it is still what was read: a value that was written in the meantime is kept.
                same = [column == old, *(part == value for part, value in zip(key, values, strict=True))]
                changed = update(column.table).where(*same).values({column: new}).returning(key[0])
                renewed += len((await session.execute(changed)).all())


def _reencrypted(db: Database, ciphertext: str) -> str | None:
    try:
        return db.keyring.encrypt(db.keyring.decrypt(ciphertext))
    except UnknownKey:
        return None


async def unreadable(db: Database) -> dict[str, int]:
    """Return the number of ciphertexts by key id, without the first key.  Those left after `renew` cannot be read."""
    current = db.keyring.ids[0]
    found: Counter[str] = Counter()
    async with db.read() as session:
        for column in CIPHERTEXTS:
            for ciphertext in await session.scalars(select(column).where(*_is_not_of(column, current))):
                found[ciphertext.partition(":")[0]] += 1
    return dict(found)


async def retire(db: Database, file: KeyFile) -> tuple[list[str], int]:
    """Remove all keys but the first; return their ids, and the number of idempotency keys deleted with them.

    Every process that may still encrypt with an older key must have ended before.  Raises: CannotRotate.
    """
    current, *older = db.keyring.ids
    needed = {key_id: count for key_id, count in (await unreadable(db)).items() if key_id in older}
    if needed:
        what = ", ".join(f"{count} with {key_id}" for key_id, count in needed.items())
        raise CannotRotate(f"older keys are still in use, {what}: `daos secrets rotate` re-encrypts these")
    file.keep_first_key()
    # Their fingerprints can no longer be compared: a repeated request would be rejected as a different one.
    lost = _is_not_of(IdempotencyKey.__table__.c.fingerprint, current)
    async with db.write() as session:
        dropped = await session.execute(delete(IdempotencyKey).where(*lost).returning(IdempotencyKey.id))
        return older, len(dropped.all())


def _is_not_of(column: ColumnElement[Any], key_id: str) -> list[ColumnElement[bool]]:
    prefix = f"{key_id}:"
    # No LIKE: in SQLite it ignores case, and key ids differ in it.
    return [column.is_not(None), func.substr(column, 1, len(prefix)) != prefix]
