"""Websockets: graphql-transport-ws, and what clients send that is none of it."""

import asyncio
import logging
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text, update
from websockets.exceptions import InvalidStatus

from db.broadcast import Everything
from db.database import Database
from db.models import Host, LogEntry, LogLevel, RunStatus, Token
from resolvers import tokens
from tests import factories
from tests.support.serving import ADMIN_TOKEN, PATIENCE, Served, serving

INIT = {"type": "connection_init", "payload": {"authorization": f"Bearer {ADMIN_TOKEN}"}}
CHANGES = "subscription { deploymentsChanged { cursor } }"
TYPENAME = "{ __typename }"
ANSWER = {"data": {"__typename": "Query"}}


def subscribe(**members: Any) -> dict[str, Any]:
    return {"id": "1", "type": "subscribe", "payload": {"query": TYPENAME}} | members


@pytest.mark.parametrize(
    "message",
    [
        "",
        "{",
        "[]",
        '"x"',
        "1",
        "null",
        "NaN",
        "[" * 100_000,
        "9" * 5000,
        b"{}",
        {},
        {"type": None},
        {"type": {}},
        {"type": ["ping"]},
        {"type": 1},
        {"type": "start"},
        {"type": "next", "id": "1", "payload": {}},
        {"type": "ping", "payload": "x"},
        {"type": "pong", "payload": []},
        {"type": "complete"},
        {"type": "complete", "id": ""},
        subscribe(id=None),
        subscribe(id=1),
        subscribe(id=""),
        subscribe(id={}),
        subscribe(id="\ud800"),
        subscribe(payload=None),
        subscribe(payload=[]),
        subscribe(payload={}),
        subscribe(payload={"query": 1}),
        subscribe(payload={"query": TYPENAME, "variables": []}),
        subscribe(payload={"query": TYPENAME, "variables": "x"}),
        subscribe(payload={"query": TYPENAME, "operationName": 1}),
        subscribe(payload={"query": TYPENAME, "extensions": []}),
    ],
    ids=lambda message: str(message)[:40],
)
async def test_what_is_no_message_closes_with_4400(served: Served, message: object) -> None:
    async with served.websocket() as socket:
        await socket.send(message)
        code, reason = await socket.closed()
    assert code == 4400
    assert reason


@pytest.mark.parametrize("payload", [[], "x"])
async def test_a_malformed_connection_init_closes_with_4400(served: Served, payload: object) -> None:
    async with served.websocket(token=None) as socket:
        await socket.send({"type": "connection_init", "payload": payload})
        assert (await socket.closed())[0] == 4400


@pytest.mark.parametrize(
    "payload",
    [
        None,
        {},
        {"authorization": None},
        {"authorization": "Bearer x"},
        {"authorization": "Bearer \ud800"},
        {"authorization": "Bearer ä"},
        {"token": ADMIN_TOKEN},
        {"authorization": ADMIN_TOKEN},
    ],
)
async def test_who_has_no_token_is_closed_with_4403(served: Served, payload: object) -> None:
    async with served.websocket(token=None) as socket:
        await socket.send({"type": "connection_init", "payload": payload})
        assert await socket.closed() == (4403, "Forbidden")


async def test_the_name_of_the_token_may_be_written_in_any_case(served: Served) -> None:
    for name in ("authorization", "Authorization", "AUTHORIZATION"):
        async with served.websocket(token=None) as socket:
            await socket.send({"type": "connection_init", "payload": {name: f"bearer {ADMIN_TOKEN}"}})
            assert await socket.receive() == {"type": "connection_ack"}


async def test_who_asks_before_connection_init_is_closed_with_4401(served: Served) -> None:
    async with served.websocket(token=None) as socket:
        await socket.subscribe("1", TYPENAME)
        assert (await socket.closed())[0] == 4401


async def test_who_sends_no_connection_init_is_closed_with_4408_also_when_pinging(served: Served) -> None:
    async with served.websocket(token=None) as socket, asyncio.TaskGroup() as group:

        async def ping() -> None:
            while True:
                await socket.send({"type": "ping"})
                await asyncio.sleep(0.01)

        pinging = group.create_task(ping())
        assert (await socket.closed())[0] == 4408
        pinging.cancel()


async def test_a_second_connection_init_closes_with_4429(served: Served) -> None:
    async with served.websocket() as socket:
        await socket.send(INIT)
        assert (await socket.closed())[0] == 4429


async def test_an_id_that_is_in_use_closes_with_4409(served: Served) -> None:
    async with served.websocket() as socket:
        await socket.subscribe("1", CHANGES)
        await socket.subscribe("1", CHANGES)
        assert (await socket.closed())[0] == 4409


async def test_a_message_that_is_too_large_closes_with_1009(served: Served) -> None:
    async with served.websocket() as socket:
        await socket.subscribe("1", TYPENAME + " " * 1_100_000)
        assert (await socket.closed())[0] == 1009


async def test_text_that_is_not_utf_8_closes_with_1007_and_is_no_error_of_the_server(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    for pieces in (b"\xff", [b"\xe2\x82", b"("]):
        async with served.websocket(token=None) as socket:
            await socket.connection.send(pieces, text=True)
            assert (await socket.closed())[0] == 1007
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


UPGRADE = (
    "Host: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (f"GET /graphql HTTP/1.1\r\n{UPGRADE}Content-Length: 5\r\n\r\n12345", b"400"),
        (f"POST /graphql HTTP/1.1\r\n{UPGRADE}Transfer-Encoding: chunked\r\n\r\n", b"400"),
        (f"GET /graphql?{'x' * 20_000} HTTP/1.1\r\n{UPGRADE}\r\n", b"414"),
        (f"GET /graphql HTTP/1.1\r\n{UPGRADE}X: {'x' * 20_000}\r\n\r\n", b"431"),
        (f"GET /graphql HTTP/1.1\r\n{UPGRADE}" + "X: y\r\n" * 200 + "\r\n", b"431"),
        (f"GET /graphql HTTP/1.1\r\n{UPGRADE.replace('Sec-WebSocket-Key', 'X')}\r\n", b"400"),
        (f"GET /graphql HTTP/1.1\r\n{UPGRADE.replace('13', '8')}\r\n", b"400"),
    ],
    ids=["body", "chunks", "line", "header", "headers", "key", "version"],
)
async def test_an_opening_that_cannot_be_read_is_refused_and_the_connection_closed(
    served: Served, caplog: pytest.LogCaptureFixture, head: str, status: bytes
) -> None:
    answer = await served.send(head.encode())
    assert answer.split(b" ", 2)[1] == status
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


async def test_the_legacy_protocol_is_not_spoken(served: Served) -> None:
    async with served.websocket(token=None, protocol="graphql-ws") as socket:
        assert (await socket.closed())[0] == 4406


@pytest.mark.parametrize("origin", ["https://evil.example", "null"])
async def test_a_foreign_page_gets_no_websocket(served: Served, origin: str) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with served.websocket(origin=origin):
            pass
    assert refused.value.response.status_code == 403


async def test_the_own_page_gets_a_websocket(served: Served) -> None:
    async with served.websocket(origin=f"http://127.0.0.1:{served.port}") as socket:
        await socket.subscribe("1", TYPENAME)
        assert (await socket.receive())["payload"] == ANSWER


@pytest.mark.parametrize(
    ("query", "members", "code"),
    [
        ("{" + "x" * 200, {}, "GRAPHQL_PARSE_FAILED"),
        ("", {}, "GRAPHQL_PARSE_FAILED"),
        ("{ nope }", {}, "GRAPHQL_VALIDATION_FAILED"),
        ("query A { __typename }", {"operationName": "B"}, "OPERATION_RESOLUTION_FAILURE"),
        ("query A { __typename } query B { __typename }", {}, "OPERATION_RESOLUTION_FAILURE"),
        ("query A { __typename } query B { __typename }", {"operationName": ""}, "OPERATION_RESOLUTION_FAILURE"),
        ("fragment F on Query { __typename }", {}, "OPERATION_RESOLUTION_FAILURE"),
        ("{ a: __typename " + "a: __typename " * 50 + "}", {}, "OPERATION_TOO_COMPLEX"),
        ("{ __typename " + "a: __typename " * 5000 + "}", {}, "OPERATION_TOO_COMPLEX"),
        ("query ($id: ID!) { host(id: $id) { id } }", {"variables": {"id": "\ud800"}}, "BAD_REQUEST"),
    ],
)
async def test_an_operation_that_is_none_gets_an_error_and_the_others_go_on(
    served: Served, query: str, members: dict[str, Any], code: str
) -> None:
    async with served.websocket() as socket:
        await socket.subscribe("follow", CHANGES)
        await socket.subscribe("wrong", query, **members)
        answer = await socket.receive()
        assert (answer["id"], answer["type"]) == ("wrong", "error")
        assert answer["payload"][0]["extensions"]["code"] == code
        deployment = await factories.deployment(served.db)
        served.broadcast.notify(deployment.id, Everything.DEPLOYMENTS)
        await socket.subscribe("right", TYPENAME)
        answers = [await socket.receive() for _ in range(3)]
    assert {"id": "right", "type": "next", "payload": ANSWER} in answers
    assert "follow" in {answer["id"] for answer in answers}


async def test_an_error_of_a_subscription_is_its_last_event(served: Served) -> None:
    async with served.websocket() as socket:
        await socket.subscribe("1", 'subscription { deploymentStatus(id: "nothing") { status } }')
        event = await socket.receive()
        assert event["payload"]["errors"][0]["extensions"] == {"code": "NOT_FOUND", "status": 404}
        assert await socket.receive() == {"id": "1", "type": "complete"}


async def test_subscriptions_of_a_socket_are_limited_and_complete_makes_room(
    own_sqlite_db: Database, tmp_path: Path
) -> None:
    async with serving(own_sqlite_db, tmp_path, max_subscriptions=3) as served, served.websocket() as socket:
        for number in range(1001):
            await socket.subscribe(str(number), CHANGES)
        refused = [await socket.receive() for _ in range(998)]
        assert {answer["type"] for answer in refused} == {"error"}
        assert {answer["id"] for answer in refused} == {str(number) for number in range(3, 1001)}
        assert refused[0]["payload"][0]["extensions"] == {"code": "TOO_MANY_REQUESTS", "status": 429}
        await socket.send({"id": "0", "type": "complete"})
        await socket.subscribe("again", TYPENAME)
        assert (await socket.receive())["payload"] == ANSWER


async def test_sockets_of_a_token_are_limited(own_sqlite_db: Database, tmp_path: Path) -> None:
    _, other = await tokens.create(own_sqlite_db, "other")
    async with own_sqlite_db.write() as session:
        await session.execute(update(Token).values(name="admin"))  # as only tokens from before can be called
    async with serving(own_sqlite_db, tmp_path, max_streams=1) as served:
        async with served.websocket(), served.websocket(token=None) as second:
            await second.send(INIT)
            assert await second.closed() == (1013, "Too many connections")
            async with served.websocket(other.reveal()):
                pass
        async with served.websocket():
            pass  # the first one has made room


async def test_websockets_count_as_connections_and_are_limited_with_them(
    own_sqlite_db: Database, tmp_path: Path
) -> None:
    async with serving(own_sqlite_db, tmp_path, max_connections=3) as served:
        async with served.websocket(), served.websocket():
            with pytest.raises(InvalidStatus) as refused:
                async with served.websocket():
                    pass
        assert refused.value.response.status_code == 503
        async with served.websocket():
            pass  # there is room again


async def test_many_pings_are_answered(served: Served) -> None:
    async with served.websocket() as socket:
        for _ in range(5000):
            await socket.send({"type": "ping"})
        for _ in range(5000):
            assert await socket.receive() == {"type": "pong"}


async def test_the_streams_of_a_revoked_token_end(own_sqlite_db: Database, tmp_path: Path) -> None:
    token = (await tokens.create(own_sqlite_db, "leaver"))[1].reveal()
    async with (
        serving(own_sqlite_db, tmp_path, recheck_interval=0.1) as served,
        served.websocket() as other,
        served.websocket(token) as socket,
        served.client(token) as client,
    ):
        await socket.subscribe("1", CHANGES)
        headers = {"accept": "text/event-stream"}
        async with client.stream("POST", served.url, json={"query": CHANGES}, headers=headers) as response:
            await tokens.revoke(own_sqlite_db, "leaver")
            assert await socket.closed() == (4403, "Forbidden")
            async with asyncio.timeout(PATIENCE):
                assert "complete" not in (await response.aread()).decode()
        await other.subscribe("1", TYPENAME)
        assert (await other.receive())["payload"] == ANSWER


async def test_a_query_sees_what_changed_since_the_last_one(served: Served) -> None:
    deployment = await factories.deployment(served.db)
    query = f'{{ deployment(id: "{deployment.id}") {{ host {{ name }} }} }}'
    async with served.websocket() as socket:
        names = []
        for name in ("before", "after"):
            async with served.db.write() as session:
                await session.execute(update(Host).where(Host.id == deployment.host_id).values(name=name))
            await socket.subscribe(name, query)
            names.append((await socket.receive())["payload"]["data"]["deployment"]["host"]["name"])
            assert (await socket.receive())["type"] == "complete"
    assert names == ["before", "after"]


async def test_a_mutation_that_takes_too_long_is_ended(own_sqlite_db: Database, tmp_path: Path) -> None:
    async with serving(own_sqlite_db, tmp_path, operation_timeout=0.1) as served, served.websocket() as socket:
        async with own_sqlite_db.write() as session:
            await session.execute(text("SELECT 1"))  # the one writer is taken
            await socket.subscribe("1", 'mutation { createHost(input: {name: "h", address: "h"}) { host { id } } }')
            answer = await socket.receive()
        assert answer["type"] == "error"
        assert answer["payload"][0]["extensions"] == {"code": "TIMEOUT", "status": 504}


async def test_a_server_with_open_websockets_stops(own_sqlite_db: Database, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        async with serving(own_sqlite_db, tmp_path) as served:
            socket = await stack.enter_async_context(served.websocket())
            await socket.subscribe("1", CHANGES)
            start = time.monotonic()
        assert time.monotonic() - start < 2
        assert (await socket.closed())[0] == 1012


class Operations(logging.Handler):
    """The types of the operations that were logged, as they come."""

    def __init__(self) -> None:
        super().__init__()
        self.types: asyncio.Queue[str] = asyncio.Queue()

    def emit(self, record: logging.LogRecord) -> None:
        self.types.put_nowait(record.fields["type"])  # type: ignore[attr-defined] # by `extra`


async def test_a_client_that_leaves_ends_its_subscriptions(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    operations = Operations()
    logging.getLogger("schema.log").addHandler(operations)
    try:
        async with served.websocket() as socket:
            await socket.subscribe("1", CHANGES)
            await socket.subscribe("2", TYPENAME)
            await socket.receive()
        async with asyncio.timeout(PATIENCE):
            assert [await operations.types.get() for _ in range(2)] == ["query", "subscription"]
    finally:
        logging.getLogger("schema.log").removeHandler(operations)


async def test_events_that_are_shared_have_each_operations_own_id(served: Served) -> None:
    run = await factories.run(served.db, to=RunStatus.RUNNING)
    await factories.log(served.db, run, 1)
    document = f'subscription {{ runLog(runId: "{run.id}") {{ entries {{ message }} complete }} }}'
    ids = ["a", 'b"\\"\u2028', "ä"]
    async with served.websocket() as one, served.websocket() as other:
        for operation_id in ids:
            await one.subscribe(operation_id, document)
        await other.subscribe(ids[0], document)
        first = [await one.receive() for _ in ids] + [await other.receive()]
        entry = 'line \u2029 "quoted" ä'
        async with served.db.write() as session:
            session.add(LogEntry(run_id=run.id, sequence=2, level=LogLevel.INFO, message=entry))
        served.broadcast.notify(run.id)
        second = [await one.receive() for _ in ids] + [await other.receive()]
    for messages, said in ((first, "line 1"), (second, entry)):
        data = {"runLog": {"entries": [{"message": said}], "complete": False}}
        assert {message["id"] for message in messages[:3]} == set(ids)
        assert messages[3]["id"] == ids[0]
        assert [message["type"] for message in messages] == ["next"] * 4
        assert [message["payload"] for message in messages] == [{"data": data}] * 4


async def test_no_token_is_logged(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    async with served.websocket() as socket:
        await socket.subscribe("1", TYPENAME)
        await socket.receive()
    assert ADMIN_TOKEN not in caplog.text
