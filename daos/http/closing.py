"""Closes connections so that a client that is still sending can read its response.

If a socket is closed with unread bytes in its buffer, the kernel resets the connection, and a client that is still
sending gets an error instead of the response.  So only the sending half is closed at first, and what arrives is
discarded for a while.
"""

import asyncio
from collections.abc import Callable
from typing import Any

PAUSE = 2.0  # seconds of silence after which a client is assumed to have read its response
MOST = 64 * 1024 * 1024  # bytes that are discarded at most


class PoliteTransport:
    """An asyncio transport that is closed in two steps if `still_sends` says that the client may be sending.

    At most `seconds` pass between the two steps.
    """

    def __init__(self, transport: asyncio.Transport, still_sends: Callable[[], bool], seconds: float) -> None:
        self.plain = transport
        self._still_sends = still_sends
        self._seconds = seconds
        self._is_ending = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.plain, name)

    def write(self, data: bytes) -> None:
        """Write data, unless the transport is closing."""
        if not self._is_ending:
            self.plain.write(data)

    def is_closing(self) -> bool:
        """Whether the last response has been written."""
        return self._is_ending or self.plain.is_closing()

    def close(self) -> None:
        """Close after the client has read what was written."""
        if self._is_ending:
            return
        if self.plain.is_closing() or not self._still_sends() or not self.plain.can_write_eof():
            self.plain.close()
            return
        self._is_ending = True
        self.plain.set_protocol(_Ending(self.plain, self._seconds))
        self.plain.write_eof()
        self.plain.resume_reading()  # uvicorn pauses it for a body that the application does not read

    def close_now(self) -> None:
        """Close without waiting for the client."""
        self.plain.close()


class _Ending(asyncio.Protocol):
    """Discards what arrives, up to `MOST` bytes in `seconds`; the original protocol is notified of the loss."""

    def __init__(self, transport: asyncio.Transport, seconds: float) -> None:
        self._transport = transport
        self._before = transport.get_protocol()
        self._left = MOST
        self._loop = asyncio.get_running_loop()
        self._end = self._loop.call_later(seconds, transport.close)
        self._pause = self._loop.call_later(PAUSE, transport.close)

    def data_received(self, data: bytes) -> None:
        self._left -= len(data)
        self._pause.cancel()
        if self._left < 0:
            self._transport.close()
        else:
            self._pause = self._loop.call_later(PAUSE, self._transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        self._pause.cancel()
        self._end.cancel()
        self._before.connection_lost(exc)
