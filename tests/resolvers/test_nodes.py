"""Rows of any type by their ids alone, on both engines."""

from uuid import UUID, uuid4

import pytest

from db.database import Database
from db.models import AuditEntry, Run
from resolvers import nodes, tokens
from resolvers.errors import InvalidInput
from resolvers.nodes import MAX_IDS, Node
from tests import factories
from tests.support.attacks import UNKNOWN
from tests.support.statements import selects


async def _one_of_each(db: Database) -> list[UUID]:
    """The ids of a run, its deployment, its host, its package, an SSH key, a token, and an entry of the audit log."""
    host, package = await factories.host(db, labels=["ours"]), await factories.package(db)
    deployment = await factories.deployment(db, on=host, of=package)
    run = await factories.run(db, deployment)
    key, (token, _) = await factories.ssh_key(db), await tokens.create(db, "ci")
    entry = AuditEntry(principal="ci", mutation="m", object_ids=[], outcome="OK")
    async with db.write() as session:
        session.add(entry)
    return [run.id, deployment.id, host.id, package.id, key.id, token.id, entry.id]


def _ids(rows: list[Node | None]) -> list[UUID | None]:
    return [None if row is None else row.id for row in rows]


async def test_rows_have_the_order_of_their_ids(db: Database) -> None:
    made = await _one_of_each(db)
    wanted = [*made[::-1], made[0]]
    found = await nodes.get_many(db, [str(key) for key in wanted], for_admin=True)
    assert _ids(found) == wanted
    assert isinstance(found[-1], Run)


async def test_only_admins_find_ssh_keys_tokens_and_the_audit_log(db: Database) -> None:
    made = await _one_of_each(db)
    found = await nodes.get_many(db, [str(key) for key in made], for_admin=False)
    assert _ids(found) == [*made[:4], None, None, None]


async def test_what_is_on_other_hosts_is_none(db: Database) -> None:
    made = await _one_of_each(db)
    wanted = [str(key) for key in made[:4]]
    theirs = db.limited_to(frozenset({"theirs"}))
    assert _ids(await nodes.get_many(theirs, wanted, for_admin=False)) == [None, None, None, made[3]]
    assert _ids(await nodes.get_many(db.limited_to(frozenset({"ours"})), wanted, for_admin=False)) == made[:4]


async def test_unknown_and_malformed_ids_are_none_between_others(db: Database) -> None:
    host = await factories.host(db)
    found = await nodes.get_many(db, [*UNKNOWN, str(host.id), str(host.id).upper()], for_admin=True)
    assert _ids(found) == [*[None] * len(UNKNOWN), host.id, host.id]


async def test_each_type_takes_one_statement_and_none_when_all_are_found(db: Database) -> None:
    made = [str((await factories.deployment(db)).id) for _ in range(5)]
    with selects() as seen:
        await nodes.get_many(db, made, for_admin=True)
    assert len(seen) == 1
    with selects() as seen:
        await nodes.get_many(db, [*made, str(uuid4()), str(uuid4())], for_admin=True)
    assert len(seen) == 7


async def test_the_number_of_ids_is_limited(sqlite_db: Database) -> None:
    assert await nodes.get_many(sqlite_db, [str(uuid4())] * MAX_IDS, for_admin=True) == [None] * MAX_IDS
    assert await nodes.get_many(sqlite_db, [], for_admin=True) == []
    with pytest.raises(InvalidInput, match="ids must have at most 100 ids"):
        await nodes.get_many(sqlite_db, [str(uuid4())] * (MAX_IDS + 1), for_admin=True)
