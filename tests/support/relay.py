"""A TCP relay that can go silent without closing, as if a machine between client and server had lost power."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


class Relay:
    """Forwards connections to `port` of the loopback interface, in both directions."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._passing: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._is_refusing = False
        self.refused = asyncio.Event()  # set when a connection was refused
        self.port = 0

    def freeze(self) -> None:
        """Forward nothing more for the current connections."""
        for passing in self._passing:
            passing.cancel()

    def refuse(self) -> None:
        """Close each new connection immediately."""
        self._is_refusing = True

    def accept(self) -> None:
        """Connect again."""
        self._is_refusing = False

    def close(self) -> None:
        self.freeze()
        for writer in self._writers:
            writer.close()

    async def connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a new connection."""
        self._writers.add(writer)
        if self._is_refusing:
            writer.close()
            self.refused.set()
            return
        there, onward = await asyncio.open_connection(*self._target)
        self._writers.add(onward)
        for source, sink in ((reader, onward), (there, writer)):
            passing = asyncio.create_task(_pass_on(source, sink))
            self._passing.add(passing)
            passing.add_done_callback(self._passing.discard)


async def _pass_on(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await source.read(2**16):
            sink.write(data)
            await sink.drain()
        sink.close()


@asynccontextmanager
async def relay(host: str, port: int) -> AsyncIterator[Relay]:
    """A relay to `port` of `host`."""
    between = Relay(host, port)
    server = await asyncio.start_server(between.connect, "127.0.0.1", 0)
    between.port = server.sockets[0].getsockname()[1]
    try:
        yield between
    finally:
        server.close()
        between.close()
