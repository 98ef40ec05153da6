"""Entries of the audit: part of the transaction that they tell of, bounded, and gone when they are old."""

from datetime import timedelta
from uuid import uuid4

import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError

from db.database import Database
from db.models import AuditEntry, Host, HostTransport, now
from resolvers import audit
from resolvers.audit import MOST_IDS, TIDY_SIZE, Deed
from tests import factories

USUAL = {"principal": "p", "mutation": "m", "object_ids": [], "outcome": "OK"}


def deed(*named: str, retention: timedelta = audit.RETENTION) -> Deed:
    return Deed("ci", None, "192.0.2.7", "createHost", named, retention)


def host(name: str) -> Host:
    return Host(name=name, transport=HostTransport.LOCAL, address=None, port=22, user="root")


async def entries(db: Database) -> list[AuditEntry]:
    async with db.read() as session:
        return list(await session.scalars(select(AuditEntry).order_by(AuditEntry.id)))


async def test_an_entry_names_what_the_input_names_and_then_what_was_made(db: Database) -> None:
    asked = deed("named", "named")
    async with db.witnessed(asked.witness).write() as session:
        session.add(made := host("web"))
    [entry] = await entries(db)
    assert entry.object_ids == ["named", str(made.id)]
    assert (entry.principal, entry.mutation, entry.outcome) == ("ci", "createHost", "OK")
    assert asked.is_written


async def test_a_transaction_that_is_undone_leaves_no_entry(db: Database) -> None:
    await factories.host(db, name="web")
    with pytest.raises(IntegrityError):
        async with db.witnessed(deed().witness).write() as session:
            session.add(host("web"))
    assert await entries(db) == []


async def test_a_second_transaction_of_a_deed_adds_no_entry(db: Database) -> None:
    witnessed = db.witnessed(deed().witness)
    for name in ("one", "two"):
        async with witnessed.write() as session:
            session.add(host(name))
    assert len(await entries(db)) == 1


async def test_what_failed_is_written_down_by_its_code(db: Database) -> None:
    await deed("x").failed(db, "NAME_TAKEN")
    [entry] = await entries(db)
    assert (entry.outcome, entry.object_ids) == ("NAME_TAKEN", ["x"])


async def test_an_entry_names_so_many_and_no_more(db: Database) -> None:
    await deed(*(str(uuid4()) for _ in range(MOST_IDS + 1))).done(db)
    [entry] = await entries(db)
    assert len(entry.object_ids) == MOST_IDS


async def test_old_entries_go_some_at_a_time_and_the_oldest_first(db: Database) -> None:
    old = now() - timedelta(days=3)
    async with db.write() as session:
        session.add_all(AuditEntry(at=old, **USUAL) for _ in range(TIDY_SIZE + 1))
        session.add(AuditEntry(at=old + timedelta(seconds=1), **USUAL))
        session.add(AuditEntry(at=now() - timedelta(days=1), **USUAL))
    counts = []
    for _ in range(2):
        await deed(retention=timedelta(days=2)).done(db)
        async with db.read() as session:
            counts.append(await session.scalar(select(func.count()).select_from(AuditEntry)))
    assert counts == [4, 3]  # two old ones and two new ones; then one and two


async def test_the_export_goes_through_all_in_their_order_batch_by_batch(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "BATCH_SIZE", 2)
    for number in range(5):
        await deed(str(number)).done(db)
    assert [entry["objectIds"] async for entry in audit.export(db)] == [[str(number)] for number in range(5)]
    assert [entry async for entry in audit.export(db, now() + timedelta(days=1))] == []


async def test_the_export_shows_what_json_can(db: Database) -> None:
    await deed().done(db)
    [entry] = [entry async for entry in audit.export(db, now() - timedelta(days=1))]
    assert entry["at"].endswith("Z")
    assert {name: entry[name] for name in ("principal", "tokenId", "address", "mutation", "outcome")} == {
        "principal": "ci",
        "tokenId": None,
        "address": "192.0.2.7",
        "mutation": "createHost",
        "outcome": "OK",
    }
