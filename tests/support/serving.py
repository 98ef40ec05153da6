"""The application on a real socket, in the test's own event loop, and clients of it."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Origin, Subprotocol

from daos.app import application
from daos.auth.tokens import Authenticator
from daos.cli import bind, make_server
from daos.http.body import BodyLimits
from daos.http.endpoint import Transport
from daos.http.streams import Streams
from daos.parts import Parts
from daos.settings import Settings
from db.broadcast import Broadcast
from db.database import Database
from db.encryption import Secret
from runner.engine.embedded import EmbeddedEngine
from runner.worker import Worker, WorkerSettings

ADMIN_TOKEN = "daos_admin"
HOSTS = "localhost,127.0.0.1,[::1]"
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # httpx makes one for each client, which takes longer than a test
PATIENCE = 20.0  # seconds; what takes longer has failed


class QuickSettings(Settings):
    """Settings whose time-outs end within a test."""

    @property
    def transport(self) -> Transport:
        body = BodyLimits(size=self.max_body, pause=0.2, time=0.5)
        return replace(super().transport, head_timeout=0.5, init_timeout=0.3, body=body)


@dataclass(frozen=True)
class Served:
    """A server that listens on 127.0.0.1."""

    port: int
    db: Database
    broadcast: Broadcast
    streams: Streams

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/graphql"

    def client(self, token: str | None = ADMIN_TOKEN) -> httpx.AsyncClient:
        """An HTTP client that shows `token`."""
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return httpx.AsyncClient(headers=headers, timeout=PATIENCE, trust_env=False, verify=NO_TLS)

    async def ask(self, query: str, token: str | None = ADMIN_TOKEN, **members: Any) -> httpx.Response:
        """The answer to a POST."""
        async with self.client(token) as client:
            return await client.post(self.url, json={"query": query, **members})

    async def send(self, raw: bytes) -> bytes:
        """What the server answers to these bytes until it closes the connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(raw)
        try:
            async with asyncio.timeout(PATIENCE):
                return await reader.read()
        finally:
            writer.close()

    @asynccontextmanager
    async def websocket(
        self, token: str | None = ADMIN_TOKEN, protocol: str = "graphql-transport-ws", origin: str | None = None
    ) -> AsyncIterator["Socket"]:
        """A websocket; where `token` is given, its connection is initialised."""
        async with connect(
            f"ws://127.0.0.1:{self.port}/graphql",
            subprotocols=[Subprotocol(protocol)],
            origin=None if origin is None else Origin(origin),
            proxy=None,
            max_size=None,
        ) as connection:
            client = Socket(connection)
            if token is not None:
                await client.send({"type": "connection_init", "payload": {"Authorization": f"Bearer {token}"}})
                assert await client.receive() == {"type": "connection_ack"}
            yield client


@dataclass(frozen=True)
class Socket:
    """A client's end of a websocket."""

    connection: ClientConnection

    async def send(self, message: object) -> None:
        await self.connection.send(message if isinstance(message, str | bytes) else json.dumps(message))

    async def subscribe(self, operation_id: str, query: str, **members: Any) -> None:
        await self.send({"id": operation_id, "type": "subscribe", "payload": {"query": query, **members}})

    async def receive(self) -> dict[str, Any]:
        """The next message."""
        async with asyncio.timeout(PATIENCE):
            message: dict[str, Any] = json.loads(await self.connection.recv())
        return message

    async def closed(self) -> tuple[int | None, str | None]:
        """The code and reason of the close, once it has come; what comes before is passed over."""
        async with asyncio.timeout(PATIENCE):
            with suppress(ConnectionClosed):
                async for _ in self.connection:
                    pass
            await self.connection.wait_closed()
        return self.connection.close_code, self.connection.close_reason


@asynccontextmanager
async def serving(
    db: Database, directory: Path, recheck_interval: float = 30.0, **values: Any
) -> AsyncIterator[Served]:
    """A server over `db`, with the settings `values`; it is stopped politely afterwards."""
    settings = QuickSettings(**{"allowed_hosts": HOSTS, "data_dir": directory, **values})
    broadcast = Broadcast()
    authenticator = Authenticator(db, Secret(ADMIN_TOKEN))
    streams = Streams(authenticator, settings.max_streams, recheck_interval, settings.max_subscription_cost)
    # Its engine is not started: runs stay queued.
    engine = EmbeddedEngine(db, Worker(db, broadcast, WorkerSettings(directory, "test")), 1)
    app = application(Parts(db, broadcast, engine), authenticator, settings=settings, streams=streams)
    server = make_server(app, settings)
    with bind("127.0.0.1", 0) as listening:
        listening.listen()
        serve = asyncio.create_task(server.serve([listening]), name="server")
        try:
            yield Served(listening.getsockname()[1], db, broadcast, streams)
        finally:
            server.should_exit = True
            await serve
