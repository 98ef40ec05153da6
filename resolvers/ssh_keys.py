"""Keys to log in to hosts with, kept encrypted.  The private part goes to ssh and to nobody else."""

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
    """The keys that there are of `key_ids`."""
    async with db.read() as session:
        keys = await session.scalars(select(SshKey).where(SshKey.id.in_(key_ids)))
        return {key.id: key for key in keys}


async def create(
    db: Database, *, name: str, private_key: Secret | None = None, passphrase: Secret | None = None
) -> SshKey:
    """A new key; without a `private_key` it is made here.  The passphrase opens the given one and is not kept.

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
    """Delete a key that no host names; gives its id.  Raises: NotFound, InUse."""
    async with db.write() as session:
        # Locked, so that no host that names it can be created beside this.
        key = await _get(session, key_id, lock=True)
        await refuse_while_used(session, "SSH key", key_id, Host, Host.ssh_key_id == key.id)
        await session.execute(delete(SshKey).where(SshKey.id == key.id))
    return key.id


async def kept(session: AsyncSession, key_id: str) -> UUID:
    """The id of a key, which cannot be deleted before the transaction ends.  Raises: NotFound."""
    return (await _get(session, key_id, lock={"read": True, "key_share": True})).id


async def _get(session: AsyncSession, key_id: str, *, lock: bool | dict[str, bool]) -> SshKey:
    parsed = ids.parse(key_id)
    key = await session.get(SshKey, parsed, with_for_update=lock) if parsed is not None else None
    if key is None:
        raise NotFound(kind="SSH key", id=key_id)
    return key


async def _private_key(check: Check, given: Secret | None, passphrase: Secret | None) -> PrivateKey | None:
    """The key that was given, or a new one; None where `check` has noted what is wrong with it."""
    if given is None:
        if passphrase is not None and passphrase.reveal():
            check.add("passphrase", "ALONE", "passphrase must not be given without a private key.")
        return private_keys.generate()
    fits = check.text("private_key", given.reveal(), MAX_PRIVATE_KEY)
    if passphrase is not None:
        fits &= check.text("passphrase", passphrase.reveal(), MAX_PASSPHRASE)
    if not fits:
        return None
    try:
        # A passphrase is slow to try by intention.
        return await asyncio.to_thread(private_keys.read, given, passphrase)
    except Unusable as problem:
        check.add(problem.argument, problem.code, f"{problem.argument} {problem}.")
        return None
