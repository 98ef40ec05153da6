"""HTTP/1.1 parsed by h11, without the leniencies of h11 (0.16) that a proxy in front may interpret differently.

If two servers disagree about the end of a request, an attacker can smuggle a request in the body of another one, so
that it bypasses the checks of the proxy, or its response goes to another client.  h11 itself rejects differing or
malformed values of Content-Length, a Transfer-Encoding other than `chunked`, whitespace before a colon, a bare CR in a
line, a missing or repeated Host, and a chunk that does not end at its declared length.
"""

import re

import h11
from h11._receivebuffer import ReceiveBuffer

BARE_LF_OR_FOLD = re.compile(rb"(?<!\r)\n|\n[ \t]")
FRAMING = (b"content-length", b"transfer-encoding")


class StrictConnection(h11.Connection):
    """The server side of a connection.  Ambiguous framing raises `RemoteProtocolError`."""

    def __init__(self, max_incomplete_event_size: int) -> None:
        super().__init__(h11.SERVER, max_incomplete_event_size)
        self._receive_buffer = _Lines()

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        event = super().next_event()
        if isinstance(event, h11.Request):
            _check(event)
        return event


def _check(request: h11.Request) -> None:
    framing = [name for name, _ in request.headers if name in FRAMING]
    if b"transfer-encoding" not in framing:
        return
    if b"content-length" in framing:
        raise h11.RemoteProtocolError("Content-Length together with Transfer-Encoding")
    if request.http_version < b"1.1":
        raise h11.RemoteProtocolError("Transfer-Encoding in HTTP/1.0")


class _Lines(ReceiveBuffer):
    """The receive buffer; its lines must end with CR LF and must not be folded."""

    def maybe_extract_lines(self) -> list[bytearray] | None:
        if not self._data.startswith(b"\r\n"):
            end = self._data.find(b"\r\n\r\n")
            if BARE_LF_OR_FOLD.search(self._data, 0, len(self._data) if end < 0 else end):
                raise h11.LocalProtocolError("a bare LF, or a folded line")
        return super().maybe_extract_lines()

    def maybe_extract_next_line(self) -> bytearray | None:
        line = super().maybe_extract_next_line()
        if line is not None and b"\r" in line[:-2]:
            raise h11.LocalProtocolError("a bare CR in the extension of a chunk")
        return line
