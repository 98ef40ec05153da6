"""Requests and their answers."""

import asyncio
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from db.database import Database
from resolvers.errors import TokenUnknown, Unauthenticated
from tests import factories
from tests.support.requests import ASK, EVENTS, GRAPHQL_RESPONSE, HEAD, JSON, SUBSCRIBE, URQL, code, get, post, trickled
from tests.support.serving import ADMIN_TOKEN, Served, serving


@pytest.mark.parametrize("method", ["HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
async def test_other_methods_are_not_allowed(served: Served, method: str) -> None:
    async with served.client() as client:
        response = await client.request(method, served.url)
    assert (response.status_code, response.headers["allow"]) == (405, "GET, POST")


NAME = "never"
MUTATION = f'mutation M {{ createHost(input: {{name: "{NAME}", address: "h.example"}}) {{ host {{ id }} }} }}'


@pytest.mark.parametrize(
    "parameters",
    [
        {"query": MUTATION},
        {"query": MUTATION + " query Q { __typename }", "operationName": "M"},
        {"query": MUTATION, "_method": "POST"},
    ],
)
async def test_get_carries_out_no_mutation(served: Served, parameters: dict[str, str]) -> None:
    async with served.client() as client:
        response = await client.get(served.url, params=parameters, headers={"X-HTTP-Method-Override": "POST"})
    assert (response.status_code, response.headers["allow"], code(response)) == (405, "POST", "METHOD_NOT_ALLOWED")
    assert NAME not in (await served.ask("{ hosts { nodes { name } } }")).text


async def test_get_starts_no_subscription(served: Served) -> None:
    response = await get(served, **SUBSCRIBE)
    assert (response.status_code, response.headers["allow"]) == (405, "POST")
    assert (await get(served, EVENTS, **SUBSCRIBE)).status_code == 406


async def test_get_answers_a_query(served: Served) -> None:
    document = "query A { a: __typename } query B($n: Int) { hosts(first: $n) { nodes { id } } }"
    response = await get(served, query=document, operationName="B", variables='{"n": 1}', extensions="")
    assert response.json() == {"data": {"hosts": {"nodes": []}}}


async def test_empty_parameters_are_as_absent(served: Served) -> None:
    response = await get(served, query="{ __typename }", operationName="", variables="", extensions="")
    assert response.json() == {"data": {"__typename": "Query"}}


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("*/*", JSON),
        ("application/*", JSON),
        ("", JSON),
        (JSON, JSON),
        (GRAPHQL_RESPONSE, GRAPHQL_RESPONSE),
        (f"{GRAPHQL_RESPONSE}, {JSON};q=0.9", GRAPHQL_RESPONSE),
        (f"{GRAPHQL_RESPONSE};q=0.5, {JSON};q=0.9", JSON),
        (URQL, GRAPHQL_RESPONSE),
    ],
)
async def test_the_answer_is_of_the_type_that_the_client_prefers(
    served: Served, accept: str, content_type: str
) -> None:
    response = await post(served, accept=accept)
    assert response.headers["content-type"] == f"{content_type}; charset=utf-8"
    assert response.headers["vary"] == "Accept"
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["x-content-type-options"] == "nosniff"


async def test_the_lines_of_a_header_are_read_together(served: Served) -> None:
    async with served.client() as client:
        lines = [("accept", "image/png"), ("accept", GRAPHQL_RESPONSE)]
        response = await client.post(served.url, json={"query": "{ __typename }"}, headers=lines)
    assert (response.status_code, response.headers["content-type"]) == (200, f"{GRAPHQL_RESPONSE}; charset=utf-8")


@pytest.mark.parametrize("accept", ["image/png", "application/json;q=0", "*/*;q=0"])
async def test_what_no_answer_fits_is_not_acceptable(served: Served, accept: str) -> None:
    response = await post(served, accept=accept)
    assert (response.status_code, code(response)) == (406, "NOT_ACCEPTABLE")


REQUEST_ERRORS = [
    ("{", {}, "GRAPHQL_PARSE_FAILED"),
    ("{ nope }", {}, "GRAPHQL_VALIDATION_FAILED"),
    ("query ($n: Int!) { hosts(first: $n) { nodes { id } } }", {"variables": {"n": "x"}}, "BAD_USER_INPUT"),
    ("query A { __typename }", {"operationName": "B"}, "OPERATION_RESOLUTION_FAILURE"),
    ("query A { __typename } query B { __typename }", {}, "OPERATION_RESOLUTION_FAILURE"),
    ("query A { __typename } query B { __typename }", {"operationName": ""}, "OPERATION_RESOLUTION_FAILURE"),
    ("{ __typename " + "a: __typename " * 51 + "}", {}, "OPERATION_TOO_COMPLEX"),
]


@pytest.mark.parametrize(("query", "members", "expected"), REQUEST_ERRORS)
@pytest.mark.parametrize(("accept", "status"), [(JSON, 200), (GRAPHQL_RESPONSE, 400)])
async def test_a_request_error_has_no_data(
    served: Served, query: str, members: dict[str, Any], expected: str, accept: str, status: int
) -> None:
    response = await post(served, json.dumps({"query": query, **members}).encode(), accept=accept)
    assert (response.status_code, code(response)) == (status, expected)
    assert "data" not in response.json()


async def test_what_was_executed_is_answered_with_200(served: Served) -> None:
    query = '{ host(id: "nothing") { id } }'
    response = await post(served, json.dumps({"query": query}).encode(), accept=GRAPHQL_RESPONSE)
    assert (response.status_code, code(response)) == (200, "NOT_FOUND")
    assert response.json()["data"] == {"host": None}


@pytest.mark.parametrize(
    "body", [ASK, b"{", b'{"query":"{ nope }"}', b'{"query":"{ __schema { queryType { name } } }"}']
)
@pytest.mark.parametrize(
    ("headers", "sentence"),
    [
        ({}, str(Unauthenticated())),
        ({"authorization": "Bearer x"}, str(TokenUnknown())),
        ({"authorization": f"Basic {ADMIN_TOKEN}"}, str(Unauthenticated())),
    ],
)
async def test_who_has_no_token_is_told_nothing(
    served: Served, body: bytes, headers: dict[str, str], sentence: str
) -> None:
    async with served.client(token=None) as client:
        response = await client.post(served.url, content=body, headers={"content-type": JSON, **headers})
    assert (response.status_code, response.headers["www-authenticate"]) == (401, "Bearer")
    message = {"message": sentence, "extensions": {"code": "UNAUTHENTICATED", "status": 401}}
    assert response.json() == {"errors": [message]}


async def test_a_token_is_no_query_parameter(served: Served) -> None:
    async with served.client(token=None) as client:
        response = await client.get(served.url, params={"query": "{ __typename }", "access_token": ADMIN_TOKEN})
    assert response.status_code == 401


@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "Bearer "])
async def test_the_scheme_may_be_written_in_any_case(served: Served, scheme: str) -> None:
    response = await post(served, authorization=f"{scheme} {ADMIN_TOKEN}")
    assert response.status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:1"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"host": "evil.example"},
        {"host": "evil.example:80", "origin": "http://evil.example", "sec-fetch-site": "same-origin"},
        {"host": ""},
        {"host": "["},
    ],
)
async def test_foreign_pages_and_names_are_refused(served: Served, headers: dict[str, str]) -> None:
    named = {"content-type": JSON, **headers}
    async with served.client() as client:
        response = await client.post(served.url, content=ASK, headers=named)
        assert (response.status_code, code(response)) == (403, "FORBIDDEN")
        response = await client.get(served.url, params={"query": "{ __typename }"}, headers=named)
        assert (response.status_code, code(response)) == (403, "FORBIDDEN")


async def test_the_own_page_has_access(served: Served) -> None:
    own = f"http://127.0.0.1:{served.port}"
    assert (await post(served, origin=own, sec_fetch_site="same-origin")).status_code == 200
    assert (await post(served, origin=own)).status_code == 200
    assert (await post(served, host=f"LOCALHOST.:{served.port}")).status_code == 200
    # A proxy may have changed the name that a browser asked for.
    assert (await post(served, origin="https://daos.example", sec_fetch_site="same-origin")).status_code == 200


async def test_a_foreign_page_gets_no_leave_from_a_preflight(served: Served) -> None:
    async with served.client(token=None) as client:
        asked = {"origin": "https://evil.example", "access-control-request-method": "POST"}
        response = await client.options(served.url, headers=asked)
    assert response.status_code == 403
    assert "access-control-allow-origin" not in response.headers


async def test_a_page_of_an_allowed_origin_has_access(own_sqlite_db: Database, tmp_path: Path) -> None:
    origin = "https://portal.example"
    async with serving(own_sqlite_db, tmp_path, allowed_origins=f"{origin}/") as served, served.client(None) as client:
        preflight = await client.options(
            served.url, headers={"origin": origin, "access-control-request-method": "POST"}
        )
        assert (preflight.status_code, preflight.headers["access-control-allow-origin"]) == (204, origin)
        response = await post(served, origin=origin, sec_fetch_site="cross-site")
        assert (response.status_code, response.headers["access-control-allow-origin"]) == (200, origin)
        assert response.headers["vary"] == "Accept, Origin"


async def test_a_browser_is_sent_to_the_page(served: Served) -> None:
    async with served.client(token=None) as client:
        response = await client.get(
            served.url, headers={"accept": "text/html,*/*;q=0.8", "sec-fetch-site": "cross-site"}
        )
    assert (response.status_code, response.headers["location"]) == (303, "graphql/ide/")


@pytest.mark.parametrize(
    ("first", "drop"),
    [(b"P", b"O"), (b"POST /graphql HTTP/1.1\r\n", b"X: y\r\n"), (HEAD.encode(), b"x")],
    ids=["method", "line", "headers"],
)
async def test_a_head_that_trickles_is_cut(served: Served, first: bytes, drop: bytes) -> None:
    head, _, body = (await trickled(served, first, drop)).partition(b"\r\n\r\n")
    assert head.split()[1] == b"408"
    assert json.loads(body)["errors"][0]["extensions"] == {"code": "REQUEST_TIMEOUT", "status": 408}


async def test_a_head_that_trickles_after_an_answer_is_cut(served: Served) -> None:
    ask = f"{HEAD}Content-Length: {len(ASK)}\r\n\r\n".encode() + ASK
    answers = await trickled(served, ask + ask, b"P")
    assert re.findall(rb"HTTP/1.1 (\d+)", answers) == [b"200", b"200", b"408"]


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (HEAD.replace("Authorization", "X"), b"401"),
        (HEAD.replace("POST /graphql", "GET /healthz"), b"200"),
        (HEAD.replace("POST /graphql", "POST /nowhere"), b"404"),
    ],
    ids=["token", "ignored", "path"],
)
@pytest.mark.parametrize(
    ("length", "drop"), [("Content-Length: 1000", b" "), ("Transfer-Encoding: chunked", b"1\r\n \r\n")]
)
async def test_a_body_that_trickles_after_its_answer_is_cut(
    served: Served, head: str, status: bytes, length: str, drop: bytes
) -> None:
    answers = await trickled(served, f"{head}{length}\r\n\r\n".encode(), drop)
    assert re.findall(rb"HTTP/1.1 (\d+)", answers) == [status]


async def test_a_connection_that_asks_nothing_is_closed_without_an_answer(served: Served) -> None:
    assert await served.send(b"") == b""


async def test_a_connection_that_rests_between_requests_is_kept(served: Served) -> None:
    ports = []
    async with served.client() as client:
        for pause in (1.0, 0.0):  # twice the time that a head has
            response = await client.post(served.url, json={"query": "{ __typename }"})
            ports.append(response.extensions["network_stream"].get_extra_info("client_addr"))
            await asyncio.sleep(pause)
    assert ports[0] == ports[1]


async def test_a_short_and_plain_request_id_is_kept(served: Served) -> None:
    assert (await post(served, x_request_id="deploy-7")).headers["x-request-id"] == "deploy-7"
    for other in ("x" * 65, "a b", '"'):
        kept = (await post(served, x_request_id=other)).headers["x-request-id"]
        assert kept != other
        assert len(kept) == 16


async def test_an_operation_that_takes_too_long_is_ended(own_sqlite_db: Database, tmp_path: Path) -> None:
    async with serving(own_sqlite_db, tmp_path, operation_timeout=0.1) as served:
        async with own_sqlite_db.write() as session:
            await session.execute(text("SELECT 1"))  # the one writer is taken
            response = await served.ask(MUTATION)
        assert (response.status_code, code(response)) == (504, "TIMEOUT")
        assert (await served.ask("{ hosts { totalCount } }")).json() == {"data": {"hosts": {"totalCount": 0}}}


async def test_what_was_not_expected_is_masked_and_logged(
    own_sqlite_db: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with own_sqlite_db.write() as session:
        await session.execute(text("ALTER TABLE hosts RENAME TO elsewhere"))
    async with serving(own_sqlite_db, tmp_path) as served:
        response = await served.ask("{ hosts { totalCount } }")
    [error] = response.json()["errors"]
    assert error["message"] == "Internal server error."
    assert error["extensions"].keys() == {"code", "status", "errorId"}
    [record] = [record for record in caplog.records if record.levelname == "ERROR"]
    assert record.fields == {"error_id": error["extensions"]["errorId"]}  # type: ignore[attr-defined] # by `extra`
    assert record.exc_info is not None
    assert "no such table" in str(record.exc_info[1])


async def test_the_server_does_not_say_what_it_is(served: Served) -> None:
    assert "server" not in (await post(served)).headers


async def test_an_operation_is_logged_without_what_it_says(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    document = "query Secret($id: ID!) { host(id: $id) { id } package(id: $id) { id } }"
    await served.ask(document, variables={"id": "hunter2"}, operationName="Secret")
    [record] = [record for record in caplog.records if record.name == "schema.log"]
    fields: dict[str, Any] = record.fields  # type: ignore[attr-defined] # by `extra`
    assert fields.pop("duration_ms") >= 0
    assert fields == {
        "operation": "Secret",
        "type": "query",
        "principal": "admin",
        "token_id": None,
        "codes": ["NOT_FOUND"],
    }
    assert "hunter2" not in caplog.text


@pytest.mark.parametrize("name", ["no\nname", "x" * 100, "a b"])
async def test_a_name_that_is_none_is_not_logged(served: Served, caplog: pytest.LogCaptureFixture, name: str) -> None:
    caplog.set_level("INFO")
    await served.ask("query A { __typename }", operationName=name)
    [record] = [record for record in caplog.records if record.name == "schema.log"]
    assert record.fields["operation"] is None  # type: ignore[attr-defined] # by `extra`


def bombs() -> Iterator[tuple[str, str]]:
    """Documents that cost much if they are let."""
    for levels in (18, 40, 100):
        fragments = "".join(
            f"fragment F{level} on Query {{ ...F{level + 1} ...F{level + 1} }}\n" for level in range(levels)
        )
        yield f"fragments {levels}", f"{{ ...F0 }} {fragments} fragment F{levels} on Query {{ __typename }}"
    yield "cycle", "{ ...A } fragment A on Query { ...B } fragment B on Query { ...A }"
    yield "aliases", "{" + " ".join(f"a{number}: __typename" for number in range(1000)) + "}"
    spread = " ".join(f"...A{number}" for number in range(200))
    inside = " ".join(f"fragment A{number} on Query {{ a{number}: __typename }}" for number in range(200))
    yield "aliases in fragments", f"{{ {spread} }} {inside}"
    yield "same fields", "{" + "__typename " * 10_000 + "}"
    yield "directives", "{ __typename " + "@skip(if: false) " * 1000 + "}"
    yield "unknown directives", "{ __typename " + "@x " * 1000 + "}"
    yield "nested selections", "{a" * 5000 + "}" * 5000
    yield "nested lists", "{ a(b: " + "[" * 5000 + "]" * 5000 + ") }"
    yield "nested objects", "{ a(b: " + "{c: " * 5000 + "1" + "}" * 5000 + ") }"
    yield "nested types", "query ($a: " + "[" * 5000 + "Int" + "]" * 5000 + ") { __typename }"
    fields = "{ __schema { types " + "{ fields { type " * 6 + "{ name }" + "} }" * 6 + " } }"
    yield "introspection of fields", fields
    interfaces = "{ __schema { types " + "{ possibleTypes { interfaces " * 5 + "{ name }" + "} }" * 5 + " } }"
    yield "introspection of interfaces", interfaces
    yield "operations", " ".join(f"query Q{number} {{ __typename }}" for number in range(1000))
    yield "variables", "query (" + " ".join(f"$v{number}: Int" for number in range(2000)) + ") { __typename }"
    overlapping = " ".join(f"...O{number}" for number in range(300))
    yield (
        "overlapping fragments",
        f"{{ {overlapping} }} "
        + " ".join(f"fragment O{number} on Query {{ hosts {{ nodes {{ id name }} }} }}" for number in range(300)),
    )
    yield "unknown fields", "{" + " ".join(f"unknown{number}" for number in range(5000)) + "}"
    yield "some unknown fields", "{" + " ".join(f"unknown{number}" for number in range(900)) + "}"
    yield "a long string", '{ host(id: "' + "x" * 5_000_000 + '") { id } }'
    yield "comments", "#\n" * 100_000 + "{ __typename }"
    yield "lists in lists", "{ hosts(first: 100) { nodes { deployments(first: 100) { nodes { id } } } } }" * 2
    deep = "{ deployments(first: 100) { nodes { runs(first: 100) { nodes { log(first: 100) { nodes { at } } } } } } }"
    yield "long pages", deep


NOTICED = 0.25  # seconds that another client may wait
ATTEMPTS = 5


async def waits_beside(served: Served, document: str, **members: Any) -> tuple[httpx.Response, list[float]]:
    """The answer to `document`, and the seconds that another client waited for each of its own meanwhile."""
    waits = []
    async with served.client() as attacker, served.client() as other:
        await other.post(served.url, json={"query": "{ __typename }"})  # connects
        refused = asyncio.create_task(attacker.post(served.url, json={"query": document, **members}))
        while not refused.done():
            start = time.perf_counter()
            await other.post(served.url, json={"query": "{ __typename }"})
            waits.append(time.perf_counter() - start)
        return await refused, waits


@pytest.mark.parametrize("document", [pytest.param(document, id=name) for name, document in bombs()])
async def test_while_an_expensive_document_is_refused_others_are_served(served: Served, document: str) -> None:
    longest: list[float] = []
    # What else the machine does only makes a wait longer: the shortest of some is nearest to the cost of the document.
    while len(longest) < ATTEMPTS and min(longest, default=NOTICED) >= NOTICED:
        response, waits = await waits_beside(served, document)
        longest.append(max(waits))
        assert response.status_code == 200
        assert "data" not in response.json()
        assert code(response) in {
            "OPERATION_TOO_COMPLEX",
            "GRAPHQL_VALIDATION_FAILED",
            "GRAPHQL_PARSE_FAILED",
            "OPERATION_RESOLUTION_FAILURE",
        }
        assert "Did you mean" not in response.text
        assert len(response.content) < 100_000
    assert min(longest) < NOTICED, longest


async def test_while_many_values_are_refused_others_are_served(served: Served) -> None:
    document = "mutation ($input: CreatePackageInput!) { createPackage(input: $input) { package { id } } }"
    files = [{"path": "a", "content": ""}] * 60_000
    variables = {"input": {"name": "p", "version": "1", "composeFile": factories.COMPOSE_FILE, "files": files}}
    longest: list[float] = []
    while len(longest) < ATTEMPTS and min(longest, default=NOTICED) >= NOTICED:
        response, waits = await waits_beside(served, document, variables=variables)
        longest.append(max(waits))
        assert code(response) == "OPERATION_TOO_COMPLEX"
    assert min(longest) < NOTICED, longest
