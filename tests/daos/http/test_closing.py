"""The close of a connection whose client still sends: the client reads its answer."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from daos.http import closing
from daos.http.closing import PoliteTransport

ANSWER = b"HTTP/1.1 413 Payload Too Large\r\n\r\n"
PATIENCE = 10.0  # seconds
FOR_LONG = 60.0  # seconds that a close may take


class Refusing(asyncio.Protocol):
    """Answers the first bytes, and closes."""

    def __init__(self, still_sends: Callable[[], bool], seconds: float) -> None:
        self._still_sends = still_sends
        self._seconds = seconds
        self.lost = asyncio.Event()
        self.transport: PoliteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = PoliteTransport(transport, self._still_sends, self._seconds)

    def data_received(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(ANSWER)
        self.transport.close()
        self.transport.write(b"too late")

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()


Client = tuple[asyncio.StreamReader, asyncio.StreamWriter, Refusing]


@asynccontextmanager
async def connected(*, still_sends: bool, seconds: float = FOR_LONG) -> AsyncIterator[Client]:
    """A client that has sent its first byte, and what refuses it."""
    protocol = Refusing(lambda: still_sends, seconds)
    server = await asyncio.get_running_loop().create_server(lambda: protocol, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    try:
        async with asyncio.timeout(PATIENCE):
            writer.write(b"x")
            yield reader, writer, protocol
    finally:
        writer.close()
        server.close()


async def test_who_still_sends_reads_the_answer_and_nothing_after_it() -> None:
    async with connected(still_sends=True) as (reader, writer, protocol):
        for _ in range(64):
            writer.write(b"x" * 64 * 1024)
            await writer.drain()
        assert await reader.read() == ANSWER
        assert protocol.transport is not None
        assert protocol.transport.is_closing()
        assert not protocol.lost.is_set()
        writer.close()
        await protocol.lost.wait()


async def test_who_sends_nothing_more_is_closed_at_once() -> None:
    async with connected(still_sends=False) as (reader, _, protocol):
        assert await reader.read() == ANSWER
        await protocol.lost.wait()


async def test_who_has_read_its_answer_and_sends_nothing_is_closed_after_a_pause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(closing, "PAUSE", 0.1)
    async with connected(still_sends=True) as (reader, _, protocol):
        assert await reader.read() == ANSWER
        await protocol.lost.wait()


async def test_who_goes_on_sending_is_cut_when_the_time_is_over() -> None:
    async with connected(still_sends=True, seconds=0.3) as (_, writer, protocol):
        while not protocol.lost.is_set():
            writer.write(b"x")
            await asyncio.sleep(0.01)


async def test_who_sends_too_much_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closing, "MOST", 1000)
    async with connected(still_sends=True) as (_, writer, protocol):
        writer.write(b"x" * 2000)
        await protocol.lost.wait()


async def test_a_close_that_does_not_wait_is_one() -> None:
    async with connected(still_sends=True) as (reader, _, protocol):
        assert await reader.read() == ANSWER
        assert protocol.transport is not None
        protocol.transport.close_now()
        await protocol.lost.wait()
