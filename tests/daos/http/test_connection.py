"""Attacks on connections themselves: requests that two servers read in two ways, and memory before a token is shown."""

import asyncio
import os
import socket
import tracemalloc
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import pytest
from websockets.frames import Frame, Opcode

from daos.cli import MAX_MESSAGE
from daos.http.connection import MAX_INIT
from tests.support.serving import ADMIN_TOKEN, PATIENCE, Served

ASK = b'{"query":"{__typename}"}'
ANSWER = b'{"data":{"__typename":"Query"}}'
HEAD = f"Host: 127.0.0.1\r\nAuthorization: Bearer {ADMIN_TOKEN}\r\nContent-Type: application/json\r\n".encode()
POST = b"POST /graphql HTTP/1.1\r\n" + HEAD
LENGTH = b"Content-Length: %d\r\n" % len(ASK)
CHUNKED = b"Transfer-Encoding: chunked\r\n"
CHUNK = b"%x\r\n%b\r\n" % (len(ASK), ASK)
HIDDEN = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"  # what is smuggled
MEBIBYTE = 1024 * 1024
UPGRADE = (
    b"GET /graphql HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Protocol: graphql-transport-ws\r\n\r\n"
)

AMBIGUOUS = {
    "both lengths": POST + LENGTH + CHUNKED + b"\r\n" + CHUNK + b"0\r\n\r\n",
    "both lengths, the other first": POST + CHUNKED + LENGTH + b"\r\n" + CHUNK + b"0\r\n\r\n",
    "a length of 0 and chunks": POST + CHUNKED + b"Content-Length: 0\r\n\r\n" + CHUNK + b"0\r\n\r\n",
    "chunks in HTTP/1.0": b"POST /graphql HTTP/1.0\r\n" + HEAD + CHUNKED + b"\r\n" + CHUNK + b"0\r\n\r\n",
    "chunks twice": POST + CHUNKED + CHUNKED + b"\r\n" + CHUNK + b"0\r\n\r\n",
    "chunks as identity": POST + b"Transfer-Encoding: identity\r\n" + LENGTH + b"\r\n" + ASK,
    "chunks after another coding": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + CHUNK + b"0\r\n\r\n",
    "an obscured coding": POST + b"Transfer-Encoding: \x0bchunked\r\n" + LENGTH + b"\r\n" + ASK,
    "two lengths": POST + LENGTH + b"Content-Length: 0\r\n\r\n" + ASK,
    "two lengths in one line": POST + b"Content-Length: 24, 0\r\n\r\n" + ASK,
    "a signed length": POST + b"Content-Length: +24\r\n\r\n" + ASK,
    "a blank before the colon": POST + LENGTH.replace(b":", b" :") + b"\r\n" + ASK,
    "a folded line": POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n" + CHUNK + b"0\r\n\r\n",
    "a folded line with a tab": POST + b"X: a\r\n\tb\r\n" + LENGTH + b"\r\n" + ASK,
    "a bare LF": POST + b"X: a\n" + LENGTH + b"\r\n" + ASK,
    "only bare LFs": (POST + LENGTH + b"\r\n").replace(b"\r\n", b"\n") + ASK,
    "a bare LF at the end of the head": POST + LENGTH + b"\n" + ASK,
    "a bare CR": POST + b"X: a\rY: b\r\n" + LENGTH + b"\r\n" + ASK,
    "a NUL": POST + b"X: a\0\r\n" + LENGTH + b"\r\n" + ASK,
    "two hosts": POST + b"Host: evil.example\r\n" + LENGTH + b"\r\n" + ASK,
}
# These are found when the body is read, after a token was shown.
AMBIGUOUS_CHUNKS = {
    "a bare LF in an extension": b"18;a\nb\r\n" + ASK + b"\r\n0\r\n\r\n",
    "a bare CR in an extension": b"18;a\rb\r\n" + ASK + b"\r\n0\r\n\r\n",
    "a bare LF after the size": b"18\n" + ASK + b"\r\n0\r\n\r\n",
    "no end where the size says": b"18\r\n" + ASK + b"xx0\r\n\r\n",
    "a bare LF after the chunk": b"18\r\n" + ASK + b"\n0\r\n\r\n",
    "a bare LF after the last chunk": CHUNK + b"0\r\n\n",
    "a bare LF in the trailer": CHUNK + b"0\r\nX: a\n\r\n",
    "a folded trailer": CHUNK + b"0\r\nX: a\r\n b\r\n\r\n",
    "a size in another form": b"0x18\r\n" + ASK + b"\r\n0\r\n\r\n",
    "a negative size": b"-18\r\n" + ASK + b"\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("raw", AMBIGUOUS.values(), ids=AMBIGUOUS)
async def test_a_request_whose_end_can_be_read_in_two_ways_is_refused(served: Served, raw: bytes) -> None:
    answer = await served.send(raw + HIDDEN)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"connection: close" in answer.lower()
    assert answer.count(b"HTTP/1.1") == 1  # and what is behind it is not carried out


@pytest.mark.parametrize("chunks", AMBIGUOUS_CHUNKS.values(), ids=AMBIGUOUS_CHUNKS)
async def test_a_chunk_whose_end_can_be_read_in_two_ways_is_refused(served: Served, chunks: bytes) -> None:
    answer = await served.send(POST + CHUNKED + b"\r\n" + chunks + HIDDEN)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1") == 1
    assert ANSWER not in answer


async def test_what_has_one_end_is_answered_piece_by_piece(served: Served) -> None:
    chunked = POST + CHUNKED + b"Connection: close\r\n\r\n"
    extended = b"18;a=b;c\r\n" + ASK + b"\r\n0;d\r\nX-Trailer: a\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    for piece in chunked + extended:
        writer.write(bytes([piece]))
        await writer.drain()
    async with asyncio.timeout(PATIENCE):
        answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(ANSWER)


async def test_requests_behind_each_other_are_answered_each(served: Served) -> None:
    both = POST + LENGTH + b"\r\n" + ASK + POST + CHUNKED + b"\r\n" + CHUNK + b"0\r\n\r\n"
    answer = await served.send(both + POST + LENGTH + b"Connection: close\r\n\r\n" + ASK)
    assert answer.count(ANSWER) == 3


@pytest.mark.parametrize("token", [ADMIN_TOKEN, "none"])
async def test_who_sends_too_much_and_wants_to_close_reads_the_refusal(served: Served, token: str) -> None:
    # urllib sends all of it before it reads, and always asks to close.
    body = bytes(9 * MEBIBYTE)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    expected = 413 if token == ADMIN_TOKEN else 401

    def ask() -> int:
        request = urllib.request.Request(served.url, body, headers)  # noqa: S310 - http
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=PATIENCE)
        refused.value.close()
        return refused.value.code

    assert [await asyncio.to_thread(ask) for _ in range(8)] == [expected] * 8


async def test_who_is_refused_and_goes_on_sending_is_cut(served: Served) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(POST + b"Connection: close\r\nContent-Length: 999999999999\r\n\r\n")

    async def send() -> None:
        while True:
            writer.write(bytes(65536))
            await writer.drain()

    with allocating(at_most=8 * MEBIBYTE):
        sending = asyncio.create_task(send())
        async with asyncio.timeout(PATIENCE):
            assert (await reader.read()).startswith(b"HTTP/1.1 413 ")
            with pytest.raises(ConnectionError):
                await sending
    writer.close()


@contextmanager
def allocating(at_most: int) -> Iterator[None]:
    """See that no more than so many bytes are allocated at a time in the block, by the server or its clients."""
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < at_most, f"{peak / MEBIBYTE:.0f} MiB"


INIT = f'{{"type":"connection_init","payload":{{"authorization":"Bearer {ADMIN_TOKEN}"}}}}'.encode()
ACK = b'{"type":"connection_ack"}'


@asynccontextmanager
async def upgraded(served: Served, *, admitted: bool = False) -> AsyncIterator[socket.socket]:
    """A websocket as its socket; one that is admitted has shown a token."""
    loop = asyncio.get_running_loop()
    with socket.socket() as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.connect(("127.0.0.1", served.port))
        raw.setblocking(False)
        await loop.sock_sendall(raw, UPGRADE)
        assert (await until(raw, b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        if admitted:
            await loop.sock_sendall(raw, frame(INIT))
            await until(raw, ACK)
        yield raw


def frame(data: bytes, opcode: Opcode = Opcode.TEXT, *, fin: bool = True) -> bytes:
    return Frame(opcode, data, fin).serialize(mask=True)


async def until(raw: socket.socket, end: bytes) -> bytes:
    """What is received until `end` is there."""
    loop, answer = asyncio.get_running_loop(), b""
    async with asyncio.timeout(PATIENCE):
        while end not in answer:
            answer += await loop.sock_recv(raw, 1)
    return answer


async def received(raw: socket.socket) -> bytes:
    """All that is received until the server closes."""
    loop, answer = asyncio.get_running_loop(), b""
    async with asyncio.timeout(PATIENCE):
        while piece := await loop.sock_recv(raw, 65536):
            answer += piece
    return answer


async def test_who_has_shown_no_token_cannot_fill_the_memory(served: Served) -> None:
    # Each message lacks its last byte.
    loop, message = asyncio.get_running_loop(), frame(b" " * MEBIBYTE)[:-1]

    async def send() -> bytes:
        async with upgraded(served) as raw:
            await loop.sock_sendall(raw, message)
            return await received(raw)

    with allocating(at_most=12 * MEBIBYTE):
        answers = await asyncio.gather(*(send() for _ in range(30)))
    for answer in answers:
        assert b"\x03\xf1" in answer  # 1009
        assert b"exceeds limit" in answer


async def test_a_message_in_many_small_frames_takes_no_more_memory_than_in_one(served: Served) -> None:
    empty, small = frame(b"", Opcode.CONT, fin=False), frame(b"  ", Opcode.CONT, fin=False)
    async with upgraded(served, admitted=True) as raw:
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(raw, frame(b"{", fin=False))
        with allocating(at_most=2 * MEBIBYTE):
            for piece in (empty, small):
                for _ in range(60):
                    await loop.sock_sendall(raw, piece * 1000)
            await loop.sock_sendall(raw, frame(b"", Opcode.CONT))
            await until(raw, b"\x11\x30")  # 4400: it is no JSON


async def test_pongs_that_nobody_reads_are_not_kept(served: Served) -> None:
    pings = frame(os.urandom(125), Opcode.PING) * 1000
    async with upgraded(served, admitted=True) as raw:
        loop = asyncio.get_running_loop()
        with allocating(at_most=3 * MEBIBYTE):
            for _ in range(96):  # 12 MiB, of which the kernel's buffers hold a part
                await loop.sock_sendall(raw, pings)


async def test_a_token_of_the_size_of_a_header_can_be_shown_to_a_websocket(served: Served) -> None:
    async with served.websocket(token=None) as client:
        payload = {"Authorization": f"Bearer {ADMIN_TOKEN}", "padding": "x" * (MAX_INIT - 200)}
        await client.send({"type": "connection_init", "payload": payload})
        assert await client.receive() == {"type": "connection_ack"}
        # And with it messages have the usual size.
        await client.subscribe("1", "{ __typename }" + " " * (MAX_MESSAGE - 200))
        assert (await client.receive())["type"] == "error"  # of the document's limit, not the message's
        await client.subscribe("2", " " * MAX_MESSAGE)
        assert (await client.closed())[0] == 1009


@pytest.mark.parametrize("size", [MAX_INIT + 1, MEBIBYTE])
async def test_a_larger_one_closes_with_1009_and_the_reason(served: Served, size: int) -> None:
    async with served.websocket(token=None) as client:
        await client.send(" " * size)
        code, reason = await client.closed()
    assert code == 1009
    assert "exceeds limit" in (reason or "")
