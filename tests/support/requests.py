"""Requests to a server in the test's own process, as clients write them."""

import asyncio
from contextlib import suppress
from typing import Any

import httpx

from tests.support.serving import ADMIN_TOKEN, PATIENCE, Served

JSON = "application/json"
GRAPHQL_RESPONSE = "application/graphql-response+json"
EVENTS = "text/event-stream"
ASK = b'{"query":"{__typename}"}'
SUBSCRIBE = {"query": "subscription { deploymentsChanged { cursor } }"}
URQL = f"{GRAPHQL_RESPONSE}, application/graphql+json, {JSON}, {EVENTS}, multipart/mixed"


def code(response: httpx.Response) -> Any:
    """The code of the answer's first error."""
    return response.json()["errors"][0]["extensions"]["code"]


async def post(served: Served, body: bytes = ASK, **headers: str) -> httpx.Response:
    """The answer to a POST; the headers are written with underscores."""
    named = {"content-type": JSON} | {name.replace("_", "-"): value for name, value in headers.items()}
    async with served.client() as client:
        return await client.post(served.url, content=body, headers=named)


async def get(served: Served, accept: str = JSON, **parameters: str) -> httpx.Response:
    async with served.client() as client:
        return await client.get(served.url, params=parameters, headers={"accept": accept})


HEAD = f"POST /graphql HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {ADMIN_TOKEN}\r\nContent-Type: {JSON}\r\n"


async def trickled(served: Served, first: bytes, drop: bytes) -> bytes:
    """What the server says to `first` and a `drop` every 50 ms, until it closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(first)

    async def trickle() -> None:
        while True:
            await asyncio.sleep(0.05)
            writer.write(drop)

    answer = b""
    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
        trickling = group.create_task(trickle())
        with suppress(ConnectionResetError):  # the answer to a drop that comes after the close
            while more := await reader.read(64 * 1024):
                answer += more
        trickling.cancel()
    writer.close()
    return answer
