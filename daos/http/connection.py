"""Clients' connections: uvicorn's, which would keep some without end, and log clients' mistakes as errors (0.54)."""

import asyncio
import logging
from typing import Any, cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame
from websockets.http11 import Request

from daos.http import refusals
from daos.http.closing import PoliteTransport
from daos.http.framing import StrictConnection

logger = logging.getLogger(__name__)

MAX_HEAD = 16 * 1024  # bytes of a request's line and headers
MAX_INIT = MAX_HEAD  # bytes of a websocket's message before its token is known: as much as a header can show
MAX_READ = 16 * 1024  # bytes of a websocket that are read at once: all frames in them are parsed before anybody's turn
ADMITTED = "daos.admitted"  # extension of a websocket's ASGI scope: a function to call when its token is valid
INVALID_TEXT = 1007  # websocket's close code for text that is not UTF-8
NOT_OPENED = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class Connection(H11Protocol):
    """Gives a request's line and headers `head_timeout` seconds from their first byte, or from the connection.

    Where the answer came before the end of the body, the rest has `rest_timeout` seconds.
    """

    transport: PoliteTransport  # type: ignore[assignment]

    def __init__(self, *arguments: Any, head_timeout: float, rest_timeout: float, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.conn = StrictConnection(MAX_HEAD)
        self._head_timeout = head_timeout
        self._rest_timeout = rest_timeout
        self._timer: asyncio.TimerHandle | None = None
        self._is_refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        polite = PoliteTransport(transport, self._may_still_send, self._rest_timeout)
        super().connection_made(cast(asyncio.Transport, polite))
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._rest()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._is_answered_early():
            self._watch()

    def shutdown(self) -> None:
        super().shutdown()
        if self.transport.is_closing():
            self.transport.close_now()

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP, where there is room for an answer."""
        self._is_refused = True
        if self.conn.our_state not in {h11.IDLE, h11.SEND_RESPONSE}:
            self.transport.close()
            return
        if self.cycle is not None:
            self.cycle.disconnected = True  # or the application would answer too
        super().send_400_response(msg)

    def _should_upgrade(self) -> bool:
        # uvicorn counts websockets as connections, and lets in any number; as a request this one gets its 503.
        full = self.limit_concurrency is not None and len(self.connections) >= self.limit_concurrency
        return not full and super()._should_upgrade()

    def _may_still_send(self) -> bool:
        return self._is_refused or self.conn.their_state is h11.SEND_BODY

    def _is_answered_early(self) -> bool:
        return self.conn.our_state is h11.DONE and self.conn.their_state is h11.SEND_BODY

    def _watch(self) -> None:
        """Start the time when a head or a useless rest is being waited for, and end it when it is there."""
        early = self._is_answered_early()
        if not early and self.conn.their_state is not h11.IDLE:
            self._rest()
        elif self._timer is None:
            timeout = self._rest_timeout if early else self._head_timeout
            self._timer = self.loop.call_later(timeout, self._give_up)

    def _rest(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        if self.transport.is_closing():
            return
        # Browsers open connections ahead of need; who has asked nothing is answered nothing.
        began, _ = self.conn.trailing_data
        if began and not self._is_answered_early():
            self._refuse(refusals.TooSlowHead())
        self.transport.close_now()

    def _refuse(self, refusal: refusals.Refusal) -> None:
        client = self.client[0] if self.client else None
        logger.info("refused", extra={"fields": {**refusal.extensions, "client": client}})
        response = refusals.respond(refusal, "", {})
        for event in (
            h11.Response(status_code=response.status_code, headers=response.raw_headers),
            h11.Data(data=bytes(response.body)),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")


class Socket(WebSocketsSansIOProtocol):
    """A websocket, closed where its opening cannot be read or its text is none.

    Its messages are small until the application calls what the scope has as `ADMITTED`.
    """

    transport: PoliteTransport  # type: ignore[assignment]

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.conn.max_message_size = MAX_INIT
        self._rest = bytearray()  # of a message, behind its first frame

    def connection_made(self, transport: PoliteTransport) -> None:  # type: ignore[override]
        cast(Any, transport.plain).max_size = MAX_READ  # asyncio's own 256 KiB may be 40,000 frames
        polite = PoliteTransport(transport.plain, lambda: self.conn.parser_exc is not None, self.close_timeout)
        super().connection_made(cast(asyncio.Transport, polite))

    def shutdown(self) -> None:
        super().shutdown()
        self.transport.close_now()

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if not self.close_sent:  # before the application runs, which is a task
            extensions = cast(dict[str, Any], self.scope["extensions"])
            extensions[ADMITTED] = self._admit

    def _admit(self) -> None:
        self.conn.max_message_size = self.config.ws_max_size

    def handle_cont(self, event: Frame) -> None:
        # uvicorn keeps each frame by itself: one of two bytes takes forty, an empty one eight, and of those there is
        # no limit (0.54).
        self._rest += event.data
        if event.fin:
            self.frames.append(bytes(self._rest))
            self._rest.clear()
            self.send_receive_event_to_app()

    def handle_ping(self) -> None:
        if self.writable.is_set():
            super().handle_ping()
        else:
            self.conn.data_to_send()  # the client does not read: its pongs would be kept in memory

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.handshake_exc is not None and not self.handshake_initiated and not self.transport.is_closing():
            self.transport.write(b"".join(self.conn.data_to_send()) or NOT_OPENED)
            self.transport.close()

    def send_receive_event_to_app(self) -> None:
        if self.curr_msg_data_type == "text" and not self.close_sent and not _is_utf8(b"".join(self.frames)):
            self.conn.send_close(INVALID_TEXT)
            self.handle_parser_exception()
        else:
            super().send_receive_event_to_app()


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True
