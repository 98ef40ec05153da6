"""A process of daos whose probes can be asked."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
from starlette.applications import Starlette

from daos.monitoring import probes
from daos.parts import Parts
from db.broadcast import Broadcast
from db.database import Database
from runner.engine.embedded import EmbeddedEngine
from runner.worker import Worker, WorkerSettings

NOWHERE = "postgresql://daos@127.0.0.1:1/daos"


def make_parts(db: Database, directory: Path) -> Parts:
    """Parts whose engine takes runs, as far as it says."""
    broadcast = Broadcast()
    engine = EmbeddedEngine(db, Worker(db, broadcast, WorkerSettings(directory, "test")), 8)
    engine.ready = True
    return Parts(db, broadcast, engine, plays={"warm": 2, "cold": 0})


@asynccontextmanager
async def asking(parts: Parts) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(Starlette(routes=probes.routes(parts)))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client
