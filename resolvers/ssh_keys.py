"""SSH keys for logging in to hosts, stored encrypted.  The private key is passed only to ssh."""

import asyncio
from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from uuid_utils.compat import uuid7

from db.database import Database
from db.encryption import Secret
from db.models import Host, SshKey
from resolvers import ids, private_keys
from resolvers.errors import NameTaken, NotFound
from resolvers.in_use import refuse_while_used
from resolvers.paging import Listing
from resolvers.private_keys import MAX_PASSPHRASE, MAX_PRIVATE_KEY, PrivateKey, Unusable
from resolvers.rules import Check

SSH_KEYS = Listing("ssh_keys", SshKey, key=(SshKey.id,))


async def get_many(db: Database, key_ids: Sequence[UUID]) -> dict[UUID, SshKey]:
    """Return the existing keys among `key_ids`, by id."""
    async with db.read() as session:
        keys = await session.scalars(select(SshKey).where(SshKey.id.in_(key_ids)))
        return {key.id: key for key in keys}


async def create(
    db: Database, *, name: str, private_key: Secret | None = None, passphrase: Secret | None = None
) -> SshKey:
    """Store a key and return it; without a `private_key`, generate one.

    The passphrase decrypts the given key and is not stored.

    Raises: InvalidInput, NameTaken.
    """
    check = Check()
    check.name("name", name)
    key = await _private_key(check, private_key, passphrase)
    check.done()
    assert key is not None
    row = SshKey(
        id=uuid7(),
        name=name,
        public_key=f"{key.public} {name}",
        fingerprint=key.fingerprint,
        ciphertext=db.keyring.encrypt(key.text),
    )
    try:
        async with db.write() as session:
            session.add(row)
    except IntegrityError as error:
        raise NameTaken(kind="SSH key", name=name) from error
    return row


async def remove(db: Database, key_id: str) -> UUID:
    """Delete a key that no host uses, and return its id.  Raises: NotFound, InUse."""
    async with db.write() as session:
        # Locked, so that no host that uses it can be created at the same time.
        key = await _get(session, key_id, lock=True)
        await refuse_while_used(session, "SSH key", key_id, Host, Host.ssh_key_id == key.id)
        await session.execute(delete(SshKey).where(SshKey.id == key.id))
    return key.id


async def kept(session: AsyncSession, key_id: str) -> UUID:
    """Return the id of a key, locked so that it cannot be deleted before the transaction ends.  Raises: NotFound."""
    return (await _get(session, key_id, lock={"read": True, "key_share": True})).id


async def _get(session: AsyncSession, key_id: str, *, lock: bool | dict[str, bool]) -> SshKey:
    parsed = ids.parse(key_id)
    key = await session.get(SshKey, parsed, with_for_update=lock) if parsed is not None else None
    if key is None:
        raise NotFound(kind="SSH key", id=key_id)
    return key


async def _private_key(check: Check, given: Secret | None, passphrase: Secret | None) -> PrivateKey | None:
    """Return the given key or a new one; None if it is invalid and the problem was added to `check`."""
    if given is None:
        if passphrase is not None and passphrase.reveal():
            check.add("passphrase", "ALONE", "passphrase must not be given without a private key.")
        return private_keys.generate()
    is_valid = check.text("private_key", given.reveal(), MAX_PRIVATE_KEY)
    if passphrase is not None:
        is_valid &= check.text("passphrase", passphrase.reveal(), MAX_PASSPHRASE)
    if not is_valid:
        return None
    try:
        # In a thread: key derivation from a passphrase is slow by design.
        return await asyncio.to_thread(private_keys.read, given, passphrase)
    except Unusable as problem:
        check.add(problem.argument, problem.code, f"{problem.argument} {problem}.")
        return None
