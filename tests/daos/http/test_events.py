"""Subscriptions over HTTP: server-sent events, and what ends them."""

import asyncio
import json
import time
from pathlib import Path

import httpx

from db.database import Database
from tests import factories
from tests.support.requests import EVENTS, JSON, SUBSCRIBE, URQL, code, post
from tests.support.serving import ADMIN_TOKEN, NO_TLS, PATIENCE, Served, serving


async def test_a_subscription_is_streamed_where_events_are_acceptable(served: Served) -> None:
    deployment = await factories.deployment(served.db)
    query = f'subscription {{ deploymentStatus(id: "{deployment.id}") {{ status }} }}'
    for accept in (EVENTS, URQL, f"{EVENTS}, */*;q=0.1"):
        async with (
            served.client() as client,
            client.stream("POST", served.url, json={"query": query}, headers={"accept": accept}) as response,
        ):
            assert response.headers["content-type"].startswith(EVENTS)
            lines = response.aiter_lines()
            assert await anext(lines) == "event: next"
            assert await anext(lines) == 'data: {"data":{"deploymentStatus":{"status":"PENDING"}}}'


async def test_a_query_is_streamed_where_only_events_are_preferred(served: Served) -> None:
    response = await post(served, accept=EVENTS)
    assert response.headers["content-type"].startswith(EVENTS)
    assert response.text.split("\r\n\r\n")[0] == 'event: next\r\ndata: {"data":{"__typename":"Query"}}'


async def test_a_subscription_without_events_is_not_acceptable(served: Served) -> None:
    response = await post(served, json.dumps(SUBSCRIBE).encode(), accept=JSON)
    assert (response.status_code, code(response)) == (406, "NOT_ACCEPTABLE")


async def test_an_error_of_a_subscription_is_an_event(served: Served) -> None:
    query = 'subscription { deploymentStatus(id: "nothing") { status } }'
    response = await post(served, json.dumps({"query": query}).encode(), accept=EVENTS)
    event = json.loads(response.text.split("\r\n")[1].removeprefix("data: "))
    assert event["errors"][0]["extensions"] == {"code": "NOT_FOUND", "status": 404}


async def test_event_streams_of_a_token_are_limited(own_sqlite_db: Database, tmp_path: Path) -> None:
    async with (
        serving(own_sqlite_db, tmp_path, max_streams=1) as served,
        served.client() as client,
        client.stream("POST", served.url, json=SUBSCRIBE, headers={"accept": EVENTS}),
    ):
        response = await post(served, json.dumps(SUBSCRIBE).encode(), accept=EVENTS)
        assert (response.status_code, code(response)) == (429, "TOO_MANY_REQUESTS")
        assert response.headers["retry-after"] == "10"


async def test_a_client_that_leaves_makes_room_for_another_event_stream(
    own_sqlite_db: Database, tmp_path: Path
) -> None:
    async with serving(own_sqlite_db, tmp_path, max_streams=1) as served, served.client() as client:
        for _ in range(3):
            async with asyncio.timeout(PATIENCE):
                status = 429
                while status == 429:
                    async with client.stream(
                        "POST", served.url, json=SUBSCRIBE, headers={"accept": EVENTS}
                    ) as response:
                        status = response.status_code
            assert status == 200


async def test_a_server_with_an_open_event_stream_stops(own_sqlite_db: Database, tmp_path: Path) -> None:
    async with httpx.AsyncClient(timeout=PATIENCE, trust_env=False, verify=NO_TLS) as client:
        async with serving(own_sqlite_db, tmp_path) as served:
            headers = {"accept": EVENTS, "authorization": f"Bearer {ADMIN_TOKEN}"}
            request = client.build_request("POST", served.url, json=SUBSCRIBE, headers=headers)
            response = await client.send(request, stream=True)
            start = time.monotonic()
        assert time.monotonic() - start < 2
        assert await response.aread() == b""  # whole, and without `complete`: the client asks again
