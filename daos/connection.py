"""Clients' connections: uvicorn's, which would keep some without end, and log clients' mistakes as errors (0.54)."""

import asyncio
import logging
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from daos import refusals

logger = logging.getLogger(__name__)

INVALID_TEXT = 1007  # websocket's close code for text that is not UTF-8
NOT_OPENED = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class Connection(H11Protocol):
    """Gives a request's line and headers `head_timeout` seconds from their first byte, or from the connection.

    Where the answer came before the end of the body, the rest has `rest_timeout` seconds.
    """

    def __init__(self, *arguments: Any, head_timeout: float, rest_timeout: float, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._head_timeout = head_timeout
        self._rest_timeout = rest_timeout
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
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

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP, where there is room for an answer."""
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
        self.transport.close()

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
    """A websocket, closed where its opening cannot be read or its text is none."""

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
