"""Idempotency keys: a repeated request with the same key returns what the first one created."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import delete, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession
from uuid_utils.compat import uuid7

from db.encryption import Keyring, Secret
from db.models import IdempotencyKey, now
from resolvers.errors import InvalidInput, Problem
from resolvers.rules import Check

LIFETIME = timedelta(hours=24)
TIDY_SIZE = 100  # old keys that are deleted with each new one, at most


@dataclass(frozen=True)
class Key:
    """A client's name for a request: `text` is unique for the principal (see `Principal.key`) and the mutation."""

    principal: str
    mutation: str
    text: str


@dataclass(frozen=True)
class Request:
    """A request with a key.  `content` is equal for equal inputs."""

    key: Key
    content: Secret  # a hash, but short secrets can be guessed from a hash

    @classmethod
    def of(cls, key: Key | None, check: Check, given: Mapping[str, Any]) -> "Request | None":
        """Return the request with the input `given`; None without a key.  A problem of the key is added to `check`."""
        if key is None:
            return None
        check.idempotency_key("idempotency_key", key.text)
        canonical = json.dumps(given, sort_keys=True, default=_plain)
        return cls(key, Secret(hashlib.sha256(canonical.encode()).hexdigest()))


@dataclass(frozen=True)
class Claim:
    """A key that this transaction has locked, or none.  `earlier`: ids of what an earlier request with it created."""

    row: IdempotencyKey | None = None
    earlier: tuple[str, ...] = ()

    def made(self, *object_ids: UUID) -> None:
        """Store the ids of what this request has created, in the order of its response."""
        if self.row is not None:
            self.row.object_ids = [str(object_id) for object_id in object_ids]


async def claim(session: AsyncSession, keyring: Keyring, request: Request | None) -> Claim:
    """Lock the request's key until the transaction ends; a rollback releases it for another request.

    Call it first in the transaction: another request with the key waits here for the end of this one, and must not
    hold a lock by then that this one may need.  Raises: InvalidInput if the key was given with other input.
    """
    if request is None:
        return Claim()
    key, moment = request.key, now()
    old = IdempotencyKey.created_at <= moment - LIFETIME
    statement = _insert(session).values(
        id=uuid7(),
        principal=key.principal,
        mutation=key.mutation,
        key=key.text,
        fingerprint=keyring.fingerprint(request.content),
        object_ids=[],
        created_at=moment,
    )
    new = {name: statement.excluded[name] for name in ("fingerprint", "object_ids", "created_at")}
    upsert = statement.on_conflict_do_update(index_elements=["principal", "mutation", "key"], set_=new, where=old)
    row = await session.scalar(upsert.returning(IdempotencyKey), execution_options={"populate_existing": True})
    if row is None:
        return Claim(earlier=await _earlier(session, keyring, request))
    # Keys that another request is deleting are skipped: the two requests could deadlock.
    oldest = select(IdempotencyKey.id).where(old).limit(TIDY_SIZE).with_for_update(skip_locked=True)
    await session.execute(delete(IdempotencyKey).where(IdempotencyKey.id.in_(oldest.scalar_subquery())))
    return Claim(row)


async def _earlier(session: AsyncSession, keyring: Keyring, request: Request) -> tuple[str, ...]:
    """Return the ids of what the request with this key created.  Raises: InvalidInput."""
    key = request.key
    statement = select(IdempotencyKey).where(
        IdempotencyKey.principal == key.principal,
        IdempotencyKey.mutation == key.mutation,
        IdempotencyKey.key == key.text,
    )
    row = (await session.scalars(statement)).one()
    if not keyring.matches(row.fingerprint, request.content):
        message = "idempotency_key was given with other input in the last 24 hours; another request needs another key."
        raise InvalidInput([Problem(("idempotency_key",), "IDEMPOTENCY_KEY", message)])
    return tuple(row.object_ids)


def _insert(session: AsyncSession) -> postgresql.Insert | sqlite.Insert:
    # SQLAlchemy has a separate ON CONFLICT for each database, with the same interface.
    if session.get_bind().dialect.name == "postgresql":
        return postgresql.insert(IdempotencyKey)
    return sqlite.insert(IdempotencyKey)


def _plain(value: object) -> str:
    """Return the text of a value that JSON cannot express: a secret, a time."""
    return value.reveal() if isinstance(value, Secret) else str(value)
