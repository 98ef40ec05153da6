"""What the open subscriptions of one token may cost together."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from graphql import GraphQLError

from daos.auth.tokens import Authenticator
from daos.http.streams import Streams
from db.database import Database
from db.encryption import Secret
from resolvers import tokens
from tests import factories
from tests.support.serving import PATIENCE, Served, Socket, serving

CHEAP = "subscription { deploymentsChanged { cursor } }"  # costs 2
DEAR = "subscription { deploymentsChanged { deployment { runs(first: 20) { nodes { id } } } } }"  # costs 43
REFUSED = {"code": "OPERATION_TOO_COMPLEX", "status": 400, "limit": "subscriptionCost", "max": 100}


async def test_a_token_pays_for_what_is_open(sqlite_db: Database) -> None:
    streams = Streams(Authenticator(sqlite_db, Secret("x")), 1, max_cost=100)
    refused = pytest.raises(GraphQLError, match="would cost 101 together, more than 100")
    with streams.reserve("one", 60):
        with streams.reserve("one", 40), streams.reserve("other", 100), refused, streams.reserve("one", 1):
            pass
        with streams.reserve("one", 40):
            pass
    assert vars(streams)["_costs"] == {}


async def first_of(socket: Socket, operation_id: str, document: str) -> dict[str, Any] | None:
    """What the socket is sent for a new operation; None where it is open, and the answer to a later query came."""
    await socket.subscribe(operation_id, document)
    await socket.subscribe("behind it", "{ __typename }")
    found = None
    while (message := await socket.receive())["type"] != "complete" or message["id"] != "behind it":
        if message["id"] == operation_id:
            found = message
    return found


async def over_events(served: Served, document: str) -> str:
    """The first words of an event stream."""
    headers = {"accept": "text/event-stream"}
    async with (
        served.client() as client,
        client.stream("POST", served.url, json={"query": document}, headers=headers) as response,
        asyncio.timeout(PATIENCE),
    ):
        text = ""
        async for words in response.aiter_text():
            text += words
            if "errors" in text or ":" in text.splitlines():
                return text
    return text


async def test_the_subscriptions_of_all_sockets_and_streams_of_a_token_cost_together(
    own_sqlite_db: Database, tmp_path: Path
) -> None:
    await factories.deployment(own_sqlite_db)
    other = (await tokens.create(own_sqlite_db, "other"))[1].reveal()
    async with serving(own_sqlite_db, tmp_path, max_subscription_cost=100) as served, AsyncExitStack() as stack:
        one, two = [await stack.enter_async_context(served.websocket()) for _ in range(2)]
        async with served.websocket() as leaving, served.websocket(other) as others:
            assert await first_of(one, "1", DEAR) is None
            assert await first_of(leaving, "1", DEAR) is None
            refused = await first_of(two, "1", DEAR)
            assert refused is not None
            assert refused["type"] == "error"
            assert refused["payload"][0]["extensions"] == REFUSED
            assert '"limit":"subscriptionCost"' in await over_events(served, DEAR)
            assert await first_of(two, "2", CHEAP) is None
            assert await first_of(others, "1", DEAR) is None
        async with asyncio.timeout(PATIENCE):
            while vars(served.streams)["_costs"] != {"admin": 45}:  # noqa: ASYNC110 - the server notices the close
                await asyncio.sleep(0.01)
        assert await first_of(two, "3", DEAR) is None
        await one.send({"id": "1", "type": "complete"})
        await two.send({"id": "2", "type": "complete"})
        async with asyncio.timeout(PATIENCE):
            while vars(served.streams)["_costs"] != {"admin": 43}:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def test_a_tokens_sockets_and_streams_are_one_account(own_sqlite_db: Database, tmp_path: Path) -> None:
    """Not the admin's, whose account has the name that is in the log."""
    token = (await tokens.create(own_sqlite_db, "other"))[1].reveal()
    headers = {"accept": "text/event-stream"}
    async with (
        serving(own_sqlite_db, tmp_path, max_subscription_cost=50) as served,
        served.client(token) as client,
        client.stream("POST", served.url, json={"query": DEAR}, headers=headers),
        served.websocket(token) as socket,
    ):
        refused = await first_of(socket, "1", DEAR)
        assert refused is not None
        assert refused["payload"][0]["extensions"] == {**REFUSED, "max": 50}


async def test_what_is_refused_or_ends_at_once_costs_nothing(own_sqlite_db: Database, tmp_path: Path) -> None:
    unknown = "subscription { runLog(runId: 1) { complete } }"
    async with serving(own_sqlite_db, tmp_path, max_subscription_cost=100) as served, served.websocket() as socket:
        for number in range(3):
            ended = await first_of(socket, f"unknown {number}", unknown)
            assert ended is not None
        await first_of(socket, "invalid", "subscription { nope }")
        assert vars(served.streams)["_costs"] == {}
