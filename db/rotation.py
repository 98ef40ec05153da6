"""Encrypts anew what older keys have encrypted, and retires these, while servers go on."""

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
    """Why keys are as they were, as one line for the person who wanted it."""


# By their name, so that no new table is forgotten: a key that one of them needs must not be retired.
CIPHERTEXTS: Sequence[Column[Any]] = [
    column for table in Base.metadata.sorted_tables for column in table.columns if column.name.endswith("ciphertext")
]


async def renew(db: Database) -> int:
    """Encrypt all that there is with the first key; gives how many ciphertexts were not.

    Ends with a pass that finds none: a server that has not seen the new key in time may have added some.
    What no key of the keyring can read is left as it is: see `unreadable`.
    """
    total = 0
    while renewed := sum([await _renew(db, column) for column in CIPHERTEXTS]):
        total += renewed
    return total


async def _renew(db: Database, column: Column[Any]) -> int:
    """One pass over a column, in the order of its rows."""
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
        anew = [(values, old, new) for *values, old in rows if (new := _encrypted_anew(db, old)) is not None]
        async with db.write() as session:
            for values, old, new in anew:
                # As long as it is what was read: what somebody has written meanwhile counts.
                same = [column == old, *(part == value for part, value in zip(key, values, strict=True))]
                changed = update(column.table).where(*same).values({column: new}).returning(key[0])
                renewed += len((await session.execute(changed)).all())


def _encrypted_anew(db: Database, ciphertext: str) -> str | None:
    try:
        return db.keyring.encrypt(db.keyring.decrypt(ciphertext))
    except UnknownKey:
        return None


async def unreadable(db: Database) -> dict[str, int]:
    """How many ciphertexts there are of each key but the first, by its id.  After `renew` these cannot be read."""
    current = db.keyring.ids[0]
    found: Counter[str] = Counter()
    async with db.read() as session:
        for column in CIPHERTEXTS:
            for ciphertext in await session.scalars(select(column).where(*_is_not_of(column, current))):
                found[ciphertext.partition(":")[0]] += 1
    return dict(found)


async def retire(db: Database, file: KeyFile) -> tuple[list[str], int]:
    """Remove all keys but the first; gives their ids, and how many idempotency keys have gone with them.

    Whoever may still encrypt with an older key has to have ended before.  Raises: CannotRotate.
    """
    current, *older = db.keyring.ids
    needed = {key_id: count for key_id, count in (await unreadable(db)).items() if key_id in older}
    if needed:
        what = ", ".join(f"{count} with {key_id}" for key_id, count in needed.items())
        raise CannotRotate(f"older keys are still in use, {what}: `daos secrets rotate` encrypts these anew")
    file.keep_first_key()
    # Nobody can tell any more what these stand for: a request that came again would be refused as another one.
    lost = _is_not_of(IdempotencyKey.__table__.c.fingerprint, current)
    async with db.write() as session:
        dropped = await session.execute(delete(IdempotencyKey).where(*lost).returning(IdempotencyKey.id))
        return older, len(dropped.all())


def _is_not_of(column: ColumnElement[Any], key_id: str) -> list[ColumnElement[bool]]:
    prefix = f"{key_id}:"
    # No LIKE: in SQLite it takes "a1" for "A1".
    return [column.is_not(None), func.substr(column, 1, len(prefix)) != prefix]
