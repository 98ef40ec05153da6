"""A database without room: which errors say so, and when it is known that there is room again."""

import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, OperationalError

from db import storage
from db.database import Database
from db.storage import Storage, is_full
from tests.support.full_disk import fill, full


async def test_a_write_that_finds_no_room_is_told_from_other_errors(db: Database) -> None:
    async with full(db):
        assert is_full(await fill(db))
    with pytest.raises(DBAPIError) as other:
        async with db.write() as session:
            await session.execute(text("INSERT INTO nowhere VALUES (1)"))
    assert not is_full(other.value)
    assert not is_full(OSError(28, "No space left on device"))
    assert not is_full(None)


async def test_a_database_has_no_room_until_something_was_written_again(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "RETRY_INTERVAL", 0.0)
    assert await db.has_room()
    async with full(db):
        await fill(db.limited_to(frozenset()))  # all views of a database are of one storage
        if not db.is_sqlite:  # its row is written in place, for which a page more is not needed
            assert not await db.has_room()
    assert await db.has_room()


async def test_it_is_not_tried_again_for_each_who_asks(db: Database) -> None:
    async with full(db):
        await fill(db)
    assert not await db.has_room()  # there is room by now, but it was not tried yet


async def test_a_change_of_another_kind_that_fails_says_nothing_of_room(db: Database) -> None:
    for _ in range(2):
        with pytest.raises(DBAPIError):
            async with db.write() as session:
                await session.execute(text("INSERT INTO nowhere VALUES (1)"))
    assert await db.has_room()


async def test_a_file_system_with_next_to_no_room_has_none(
    sqlite_db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Storage(tmp_path / "daos.db").has_room
    monkeypatch.setattr(storage, "LEAST_ROOM", 1 << 80)
    assert not Storage(tmp_path / "daos.db").has_room
    assert not await sqlite_db.has_room()
    assert Storage(None).has_room
    assert Storage(tmp_path / "nowhere" / "daos.db").has_room


def test_the_index_of_changes_of_sqlite_needs_room_too() -> None:
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR_SHMSIZE
    assert is_full(OperationalError("COMMIT", None, error))
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR_READ
    assert not is_full(OperationalError("COMMIT", None, error))
