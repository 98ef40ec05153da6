"""The relay of the tests: it passes on, goes silent without closing, and refuses."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.support.relay import relay


@pytest.fixture
async def echo() -> AsyncIterator[int]:
    """The port of a server that sends back each line."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


async def test_it_passes_on_until_it_is_frozen_and_then_for_new_connections_only(echo: int) -> None:
    async with relay("127.0.0.1", echo) as between, asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", between.port)
        writer.write(b"one\n")
        assert await reader.readline() == b"one\n"
        between.freeze()
        writer.write(b"two\n")
        silence = asyncio.create_task(reader.readline())
        another, to_another = await asyncio.open_connection("127.0.0.1", between.port)
        to_another.write(b"three\n")
        assert await another.readline() == b"three\n"
        assert not silence.done()
        silence.cancel()
        writer.close()
        to_another.close()


async def test_who_is_refused_reads_the_end(echo: int) -> None:
    async with relay("127.0.0.1", echo) as between, asyncio.timeout(10):
        between.refuse()
        reader, writer = await asyncio.open_connection("127.0.0.1", between.port)
        assert await reader.read() == b""
        assert between.refused.is_set()
        writer.close()
