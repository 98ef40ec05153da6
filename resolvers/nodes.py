"""Nodes: rows of any type, selected by id."""

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any
from uuid import UUID

from sqlalchemy import select

from db.database import Database
from db.models import AuditEntry, Deployment, Host, Package, Run, SshKey, Token
from resolvers import ids
from resolvers.errors import InvalidInput, Problem

Node = Deployment | Run | Host | Package | SshKey | Token | AuditEntry

MAX_IDS = 100  # in one request

OF_EVERYBODY: tuple[Any, ...] = (Deployment, Run, Host, Package)
OF_ADMINS: tuple[Any, ...] = (SshKey, Token, AuditEntry)


async def get_many(db: Database, node_ids: Sequence[str], *, for_admin: bool) -> list[Node | None]:
    """Return the row with each id, in the order of `node_ids`; None for one that does not exist or is not visible.

    SSH keys, tokens, and the audit log are visible only with `for_admin`.  Runs at most one statement per type, and
    none for the remaining types once all ids are found.  Raises: InvalidInput.
    """
    if len(node_ids) > MAX_IDS:
        raise InvalidInput([Problem(("ids",), "RANGE", f"ids must have at most {MAX_IDS} ids.")])
    keys = [ids.parse(node_id) for node_id in node_ids]
    found: dict[UUID, Node] = {}
    async with db.read() as session:
        for entity in chain(OF_EVERYBODY, OF_ADMINS if for_admin else ()):
            wanted = set(_missing(keys, found))
            if not wanted:
                break
            found |= {row.id: row for row in await session.scalars(select(entity).where(entity.id.in_(wanted)))}
    return [None if key is None else found.get(key) for key in keys]


def _missing(keys: Sequence[UUID | None], found: dict[UUID, Node]) -> Iterator[UUID]:
    return (key for key in keys if key is not None and key not in found)
