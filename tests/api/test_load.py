"""What large answers and many subscriptions leave of the event loop for others: leases, probes, other clients."""

import asyncio
import gc
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from db.broadcast import Everything
from db.database import Database
from db.models import StatusEvent
from resolvers.deployment_changes import CHANGES
from tests import factories
from tests.support.serving import PATIENCE, Served, serving

FILES = 1000  # of a package
DEPLOYMENTS = 20
MANY_VALUES = (
    f"deployments(first: {DEPLOYMENTS}) {{ nodes {{ package {{ files {{ path size mode onlyIfMissing }} }} }} }}"
)


class Stalls:
    """How long the event loop did not come to its next turn, in seconds of this thread's processor time.

    Not by the clock: a machine that is busy with something else would look like a stall.
    """

    def __init__(self) -> None:
        self.longest = 0.0
        self.total = 0.0

    async def measure(self) -> None:
        before = time.thread_time()
        while True:
            await asyncio.sleep(0)
            now = time.thread_time()
            self.longest = max(self.longest, now - before)
            self.total += now - before
            before = now


@asynccontextmanager
async def measured() -> AsyncIterator[Stalls]:
    """Measures the event loop in the block."""
    gc.collect()
    gc.freeze()  # or collections of what all the tests have loaded would be the longest stalls
    stalls = Stalls()
    task = asyncio.create_task(stalls.measure(), name="stalls")
    try:
        yield stalls
    finally:
        task.cancel()
        gc.unfreeze()


async def _many_files(db: Database) -> None:
    package = await factories.package(db, {f"file-{number}": "x" for number in range(FILES)})
    host = await factories.host(db)
    for _ in range(DEPLOYMENTS):
        await factories.deployment(db, on=host, of=package)


@pytest.fixture
async def busy(own_sqlite_db: Database, tmp_path: Path) -> AsyncIterator[Served]:
    """A server with deployments of a package with many files."""
    await _many_files(own_sqlite_db)
    async with serving(own_sqlite_db, tmp_path) as served:
        await served.ask("{ deployments(first: 1) { nodes { package { files { path } } } } }")  # compiles statements
        yield served


async def by_http(served: Served) -> int:
    async with served.client() as client:
        answer = await client.post(served.url, json={"query": f"{{ {MANY_VALUES} }}"})
        return answer.content.count(b'"onlyIfMissing"')


async def by_websocket(served: Served) -> int:
    async with served.websocket() as socket:
        await socket.subscribe("1", f"{{ {MANY_VALUES} }}")
        return bytes(await socket.connection.recv(decode=False)).count(b'"onlyIfMissing"')


@pytest.mark.parametrize("ask", [by_http, by_websocket])
async def test_others_are_served_while_a_large_answer_is_made(busy: Served, ask: Any) -> None:
    async with measured() as stalls:
        assert await ask(busy) == FILES * DEPLOYMENTS
    assert stalls.longest < stalls.total / 5


# Nothing in it waits for the database, so that all have their event in the same turn of the loop.
AGAIN = " ".join(f"a{number}: run {{ id number status progress queuedAt }}" for number in range(45))
DEAR = f"subscription ($after: String) {{ deploymentsChanged(after: $after) {{ cursor {AGAIN} }} }}"
SOCKETS, OPERATIONS = 4, 25


async def test_others_are_served_while_many_subscriptions_of_one_token_get_an_event(
    own_sqlite_db: Database, tmp_path: Path
) -> None:
    await _many_files(own_sqlite_db)
    deployment = await factories.deployment(own_sqlite_db)
    async with (
        serving(own_sqlite_db, tmp_path, max_subscription_cost=10**9) as served,
        AsyncExitStack() as stack,
    ):
        async with own_sqlite_db.read() as session:
            last = await session.scalar(select(func.max(StatusEvent.sequence)))
        sockets = [await stack.enter_async_context(served.websocket()) for _ in range(SOCKETS)]
        for socket in sockets:
            for number in range(OPERATIONS):
                await socket.subscribe(str(number), DEAR, variables={"after": CHANGES.cursor([last])})
        async with asyncio.timeout(PATIENCE):
            while served.broadcast.subscribers["deployments"] < SOCKETS * OPERATIONS:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await factories.run(own_sqlite_db, deployment)
        async with measured() as stalls, asyncio.timeout(PATIENCE):
            served.broadcast.notify(Everything.DEPLOYMENTS)
            for socket in sockets:
                for _ in range(OPERATIONS):
                    await socket.connection.recv(decode=False)
    assert stalls.longest < stalls.total / 5
