"""Waits until a PostgreSQL transaction waits for a lock."""

import asyncio

from sqlalchemy import text

from db.database import Database


async def until_one_waits(db: Database) -> None:
    """Return when a transaction in the PostgreSQL cluster waits for another one's lock."""
    async with asyncio.timeout(10):
        waiting = 0
        while not waiting:
            async with db.read() as session:
                waiting = await session.scalar(text("SELECT count(*) FROM pg_locks WHERE NOT granted")) or 0
