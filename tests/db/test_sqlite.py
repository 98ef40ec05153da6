"""How often a transaction on SQLite leaves the loop."""

import aiosqlite
import pytest
from sqlalchemy import text

from db.database import Database


@pytest.fixture
def trips(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What connections have asked their threads for."""
    asked: list[object] = []
    execute = aiosqlite.Connection._execute

    async def counted(connection: aiosqlite.Connection, function: object, *args: object, **named: object) -> object:
        asked.append(function)
        return await execute(connection, function, *args, **named)  # type: ignore[no-untyped-call]

    monkeypatch.setattr(aiosqlite.Connection, "_execute", counted)
    return asked


@pytest.mark.parametrize("way", ["read", "write"])
async def test_a_transaction_leaves_the_loop_once_a_statement(
    sqlite_db: Database, trips: list[object], way: str
) -> None:
    transaction = getattr(sqlite_db, way)
    async with transaction():  # opens the connection
        pass
    trips.clear()
    async with transaction() as session:
        for number in range(10):
            assert await session.scalar(text("SELECT :number"), {"number": number}) == number
    assert len(trips) == 1 + 10 + 1  # BEGIN and COMMIT
