"""Client connections: uvicorn's own have no timeouts for some, and log clients' mistakes as errors (0.54)."""

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
MAX_INIT = MAX_HEAD  # bytes of a WebSocket message before authentication: as many as a header may have
MAX_READ = 16 * 1024  # bytes read from a WebSocket at once: all their frames are parsed before other tasks run
ADMITTED = "daos.admitted"  # extension of a WebSocket's ASGI scope: a function to call once its token is valid
INVALID_TEXT = 1007  # WebSocket close code for text that is not UTF-8
NOT_OPENED = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class Connection(H11Protocol):
    """Limits the time of a request's line and headers to `head_timeout` seconds, from the connect or the first byte.

    If the response was sent before the end of the body, the rest of the body has `rest_timeout` seconds.
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
        """Respond to invalid HTTP, if the state of the connection allows a response."""
        self._is_refused = True
        if self.conn.our_state not in {h11.IDLE, h11.SEND_RESPONSE}:
            self.transport.close()
            return
        if self.cycle is not None:
            self.cycle.disconnected = True  # or the application would respond too
        super().send_400_response(msg)

    def _should_upgrade(self) -> bool:
        # uvicorn counts WebSockets as connections but accepts any number; handled as a request, it is sent a 503.
        full = self.limit_concurrency is not None and len(self.connections) >= self.limit_concurrency
        return not full and super()._should_upgrade()

    def _may_still_send(self) -> bool:
        return self._is_refused or self.conn.their_state is h11.SEND_BODY

    def _is_answered_early(self) -> bool:
        return self.conn.our_state is h11.DONE and self.conn.their_state is h11.SEND_BODY

    def _watch(self) -> None:
        """Start the timer while headers, or the rest of an unneeded body, are awaited; stop it when they arrived."""
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
        # Browsers open connections in advance; without a first byte of a request there is no response.
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
    """A WebSocket that is closed if its handshake cannot be parsed or its text is not UTF-8.

    Its messages are limited to `MAX_INIT` until the application calls the extension `ADMITTED` of the scope.
    """

    transport: PoliteTransport  # type: ignore[assignment]

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.conn.max_message_size = MAX_INIT
        self._rest = bytearray()  # of a message, after its first frame

    def connection_made(self, transport: PoliteTransport) -> None:  # type: ignore[override]
        cast(Any, transport.plain).max_size = MAX_READ  # asyncio's default of 256 KiB may contain 40,000 frames
        polite = PoliteTransport(transport.plain, lambda: self.conn.parser_exc is not None, self.close_timeout)
        super().connection_made(cast(asyncio.Transport, polite))

    def shutdown(self) -> None:
        super().shutdown()
        self.transport.close_now()

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if not self.close_sent:  # the application is a task, which has not run yet
            extensions = cast(dict[str, Any], self.scope["extensions"])
            extensions[ADMITTED] = self._admit

    def _admit(self) -> None:
        self.conn.max_message_size = self.config.ws_max_size

    def handle_cont(self, event: Frame) -> None:
        # uvicorn stores each frame separately: one of two bytes takes forty, an empty one eight, and their number is
        # not limited (0.54).
        self._rest += event.data
        if event.fin:
            self.frames.append(bytes(self._rest))
            self._rest.clear()
            self.send_receive_event_to_app()

    def handle_ping(self) -> None:
        if self.writable.is_set():
            super().handle_ping()
        else:
            self.conn.data_to_send()  # discarded: the client does not read, and pongs would pile up in memory

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
