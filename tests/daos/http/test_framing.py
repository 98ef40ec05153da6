"""HTTP/1.1 as it is read: what another server could read in another way raises an error."""

import h11
import pytest

from daos.http.framing import StrictConnection

HEAD = b"POST /graphql HTTP/1.1\r\nHost: localhost\r\n"


def read(*chunks: bytes) -> list[object]:
    """The events of these bytes, as they arrive.  Raises: RemoteProtocolError."""
    connection = StrictConnection(64 * 1024)
    events: list[object] = []
    for chunk in chunks:
        connection.receive_data(chunk)
        while not isinstance(event := connection.next_event(), type):  # h11.NEED_DATA and h11.PAUSED are classes
            events.append(event)
    return events


@pytest.mark.parametrize(
    "framing",
    [
        b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"Transfer-Encoding: chunked\nX: y\r\n\r\n",
        b"X: y\r\n folded\r\nContent-Length: 0\r\n\r\n",
        b"X: y\n\nGET /other HTTP/1.1\r\n",
        b"\n\r\n",
    ],
    ids=["both lengths", "bare LF", "folded", "two bare LFs", "empty line"],
)
def test_a_head_that_can_be_read_in_two_ways_is_an_error(framing: bytes) -> None:
    with pytest.raises(h11.RemoteProtocolError):
        read(HEAD + framing)


def test_a_chunked_body_of_http_1_0_is_an_error() -> None:
    with pytest.raises(h11.RemoteProtocolError, match=r"HTTP/1\.0"):
        read(HEAD.replace(b"1.1", b"1.0") + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n")


@pytest.mark.parametrize("chunk", [b"2;a\rb\r\n{}\r\n", b"2\n{}\r\n", b"2;a\nb\r\n{}\r\n"])
def test_a_chunk_whose_line_ends_in_two_ways_is_an_error(chunk: bytes) -> None:
    with pytest.raises(h11.RemoteProtocolError):
        read(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunk + b"0\r\n\r\n")


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_request_with_one_end_is_read_however_it_arrives(size: int) -> None:
    whole = HEAD + b"Transfer-Encoding: chunked\r\n\r\n2;extension=1\r\n{}\r\n0\r\n\r\n"
    events = read(*(whole[start : start + size] for start in range(0, len(whole), size)))
    assert isinstance(events[0], h11.Request)
    assert isinstance(events[-1], h11.EndOfMessage)
    assert b"".join(bytes(event.data) for event in events if isinstance(event, h11.Data)) == b"{}"
