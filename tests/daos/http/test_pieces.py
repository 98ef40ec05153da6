"""What a server keeps for clients that ask for large answers and do not receive them."""

import asyncio
import gc
import json
import socket
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from db.database import Database
from resolvers import tokens
from tests import factories
from tests.support.serving import ADMIN_TOKEN, PATIENCE, Served, serving

MIB = 1024 * 1024
FILES = "packages(first: 1) { nodes { files { text } } }"
LARGE = f"{{ one: {FILES} two: {FILES} three: {FILES} }}"  # 9 MiB, of which the kernel takes up to 4
REFUSED = {"code": "OPERATION_TOO_COMPLEX", "status": 429, "limit": "answers", "max": 48 * MIB}


@asynccontextmanager
async def asking(served: Served, token: str = ADMIN_TOKEN) -> AsyncIterator[asyncio.StreamReader]:
    """A client that has asked for a large answer, and has received its head."""
    body = json.dumps({"query": LARGE})
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # or the kernel takes the answer
    client.connect(("127.0.0.1", served.port))
    reader, writer = await asyncio.open_connection(sock=client, limit=1024)
    writer.write(
        f"POST /graphql HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode()
    )
    try:
        async with asyncio.timeout(PATIENCE):
            await reader.readuntil(b"\r\n\r\n")
        yield reader
    finally:
        writer.close()


@pytest.fixture
async def served(own_sqlite_db: Database, tmp_path: Path) -> AsyncIterator[Served]:
    """A server with a package of 3 MiB, whose answers have at most 12."""
    await factories.package(own_sqlite_db, {"large": "x" * (3 * MIB)})
    async with serving(own_sqlite_db, tmp_path, max_answer=12 * MIB) as served:
        yield served


async def test_answers_that_are_not_received_are_limited_for_each_token(served: Served) -> None:
    other = (await tokens.create(served.db, "other"))[1].reveal()
    async with AsyncExitStack() as stack:
        for _ in range(4):
            reader = await stack.enter_async_context(asking(served))
        refused = (await served.ask(LARGE)).json()
        assert refused["data"] is None
        assert refused["errors"][0]["extensions"] == REFUSED
        assert (await served.ask("{ __typename }")).json() == {"data": {"__typename": "Query"}}
        assert "errors" not in (await served.ask(LARGE, other)).json()
        async with asyncio.timeout(PATIENCE):
            assert len(await reader.read()) > 9 * MIB
        assert "errors" not in (await served.ask(LARGE)).json()  # what was received does not count
    async with asyncio.timeout(PATIENCE):
        while "errors" in (await served.ask(LARGE)).json():  # noqa: ASYNC110 - neither does what nobody waits for
            await asyncio.sleep(0.01)


async def test_a_websockets_answers_count_until_the_next_message_is_sent(served: Served) -> None:
    async with served.websocket() as client:
        for number in range(10):
            await client.subscribe(str(number), LARGE)
            assert (await client.receive())["type"] == "next"
            assert (await client.receive())["type"] == "complete"


async def test_clients_that_do_not_read_take_little_memory(served: Served) -> None:
    tracemalloc.start()
    try:
        async with AsyncExitStack() as stack:
            for _ in range(20):
                await stack.enter_async_context(asking(served))
            gc.collect()
            assert tracemalloc.get_traced_memory()[0] < 60 * MIB
    finally:
        tracemalloc.stop()
