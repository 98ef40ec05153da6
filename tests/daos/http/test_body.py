"""What a body may be, how large it may be, and how long it may take."""

import base64
import gzip
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from db.database import Database
from tests import factories
from tests.support.requests import ASK, HEAD, JSON, code, post, trickled
from tests.support.serving import Served, serving


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b'"x"',
        b"1",
        b"null",
        b"true",
        b"[]",
        b"{",
        b"{}",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"query":"{__typename}","variables":' + b"[" * 100_000,
        b'{"query":"{__typename}","variables":{"a":' + b"9" * 5000 + b"}}",
        b'{"query":"{__typename}","variables":{"a":NaN}}',
        b'{"query":"{__typename}","variables":{"a":"\\ud800"}}',
        b'{"query":1}',
        b'{"query":""}',
        b'{"query":null}',
        b'{"query":"{__typename}","variables":"x"}',
        b'{"query":"{__typename}","variables":[]}',
        b'{"query":"{__typename}","extensions":1}',
        b'{"query":"{__typename}","operationName":1}',
        b"[" + b",".join([ASK] * 100) + b"]",
        gzip.compress(ASK, mtime=0),
    ],
    ids=lambda body: repr(body[:40]),
)
async def test_a_malformed_body_is_a_bad_request(served: Served, body: bytes) -> None:
    response = await post(served, body)
    assert (response.status_code, code(response)) == (400, "BAD_REQUEST")


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "text/plain; application/json",
        "text/application/json",
        "application/jsonx",
        "application/graphql",
        "application/json; charset=iso-8859-1",
        "",
    ],
)
async def test_a_body_of_another_type_is_unsupported(served: Served, content_type: str) -> None:
    response = await post(served, content_type=content_type)
    assert (response.status_code, code(response)) == (415, "UNSUPPORTED_MEDIA_TYPE")


async def test_a_body_without_a_type_is_unsupported(served: Served) -> None:
    async with served.client() as client:
        request = client.build_request("POST", served.url, content=ASK)
        assert "content-type" not in request.headers
        assert (await client.send(request)).status_code == 415


@pytest.mark.parametrize("content_type", ["Application/JSON", "application/json; charset=UTF-8", JSON + ";x=y"])
async def test_json_is_taken_however_it_is_written(served: Served, content_type: str) -> None:
    response = await post(served, content_type=content_type)
    assert response.json() == {"data": {"__typename": "Query"}}


async def test_a_compressed_body_is_unsupported(served: Served) -> None:
    bomb = gzip.compress(b" " * 50_000_000)
    response = await post(served, bomb, content_encoding="gzip")
    assert (response.status_code, code(response)) == (415, "UNSUPPORTED_MEDIA_TYPE")


async def test_a_large_body_is_refused_declared_or_not(own_sqlite_db: Database, tmp_path: Path) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b" " * 1_000_000

    async with serving(own_sqlite_db, tmp_path) as served, served.client() as client:
        for content in (b" " * 20_000_000, pieces()):
            response = await client.post(served.url, content=content, headers={"content-type": JSON})
            assert (response.status_code, code(response)) == (413, "PAYLOAD_TOO_LARGE")


@pytest.mark.parametrize(
    "file",
    [{"content": "key = 'value'\n" * 74_000}, {"base64": base64.b64encode(bytes(1024 * 1024)).decode()}],
    ids=["text", "base64"],
)
async def test_a_package_of_the_largest_size_is_taken(served: Served, file: dict[str, str]) -> None:
    [name] = file
    files = [{"path": f"{number}.conf"} | file for number in range(4)]
    compose_file = factories.COMPOSE_FILE + "# comment\n" * 100_000
    response = await served.ask(
        "mutation ($input: CreatePackageInput!) { createPackage(input: $input) { package { name } } }",
        variables={"input": {"name": name, "version": "1", "composeFile": compose_file, "files": files}},
    )
    assert response.json() == {"data": {"createPackage": {"package": {"name": name}}}}


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ("Content-Length: 24\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n", b"0\r\n\r\n", b"400"),
        ("Content-Length: x\r\n", ASK, b"400"),
        ("Content-Length: -1\r\n", ASK, b"400"),
        ("Content-Length: 24\r\nContent-Length: 25\r\n", ASK, b"400"),
        ("Content-Length: 1000000\r\n", ASK, b"408"),
        ("Transfer-Encoding: chunked\r\n", b"5\r\n{\"que\r\n", b"408"),
    ],
)  # fmt: skip
async def test_a_body_that_cannot_end_is_refused_and_the_connection_closed(
    served: Served, headers: str, body: bytes, status: bytes
) -> None:
    answer = await served.send(f"{HEAD}{headers}\r\n".encode() + body)
    assert answer.split(b" ", 2)[1] == status


async def test_a_body_that_trickles_is_cut(served: Served) -> None:
    answer = await trickled(served, f"{HEAD}Content-Length: 1000\r\n\r\n".encode(), b" ")
    assert answer.split()[1] == b"408"


@pytest.mark.parametrize("head", [HEAD, HEAD.replace("Authorization", "X"), HEAD.replace("/graphql", "/nowhere")])
@pytest.mark.parametrize("together", [True, False])
async def test_a_body_that_is_none_is_no_error_of_the_server(
    served: Served, caplog: pytest.LogCaptureFixture, head: str, together: bool
) -> None:
    request = f"{head}Transfer-Encoding: chunked\r\n\r\n".encode()
    answer = await (served.send(request + b"zz\r\n") if together else trickled(served, request, b"zz\r\n"))
    assert re.findall(rb"HTTP/1.1 (\d+)", answer)[0] in {b"400", b"401", b"404"}
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


@pytest.mark.parametrize("length", [20_000, 70_000])
async def test_a_long_url_is_refused(served: Served, length: int) -> None:
    head = HEAD.replace("POST /graphql", "GET /graphql?query=" + "x" * length)
    answer = await served.send(f"{head}Connection: close\r\n\r\n".encode())
    assert answer.split(b" ", 2)[1] in {b"414", b"400"}  # uvicorn has its own limit
