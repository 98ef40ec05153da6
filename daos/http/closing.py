"""Closes connections so that a client who still sends can read its answer.

A kernel that closes a socket with bytes in it that nobody has read resets the connection, and the client, who still
sends, gets an error in place of the answer.  So the sending half is closed first, and what comes is dropped for a
while.
"""

import asyncio
from collections.abc import Callable
from typing import Any

PAUSE = 2.0  # seconds after which a client that sends nothing has read its answer
MOST = 64 * 1024 * 1024  # bytes that are dropped


class PoliteTransport:
    """A transport of asyncio, closed politely where `still_sends` says that the client may be sending."""

    def __init__(self, transport: asyncio.Transport, still_sends: Callable[[], bool], seconds: float) -> None:
        self.plain = transport
        self._still_sends = still_sends
        self._seconds = seconds
        self._is_ending = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.plain, name)

    def write(self, data: bytes) -> None:
        """Write what comes before the end."""
        if not self._is_ending:
            self.plain.write(data)

    def is_closing(self) -> bool:
        """Whether the last answer has been written."""
        return self._is_ending or self.plain.is_closing()

    def close(self) -> None:
        """Close when the client has read what was written."""
        if self._is_ending:
            return
        if self.plain.is_closing() or not self._still_sends() or not self.plain.can_write_eof():
            self.plain.close()
            return
        self._is_ending = True
        self.plain.set_protocol(_Ending(self.plain, self._seconds))
        self.plain.write_eof()
        self.plain.resume_reading()  # uvicorn stops it for a body that is not taken

    def close_now(self) -> None:
        """Close without waiting for what the client may send."""
        self.plain.close()


class _Ending(asyncio.Protocol):
    """Drops what arrives, `MOST` bytes in `seconds`; the protocol before it learns when the connection is lost."""

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
