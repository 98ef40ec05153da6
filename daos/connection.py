"""A client's connection: uvicorn's, which would wait for the head of a request without end (0.54)."""

import asyncio
import logging
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from daos import refusals

logger = logging.getLogger(__name__)


class Connection(H11Protocol):
    """Gives a request's line and headers `head_timeout` seconds from their first byte, or from the connection."""

    def __init__(self, *arguments: Any, head_timeout: float, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._head_timeout = head_timeout
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

    def _watch(self) -> None:
        """Start the time when a head is being waited for, and end it when it is there."""
        if self.conn.their_state is not h11.IDLE:
            self._rest()
        elif self._timer is None:
            self._timer = self.loop.call_later(self._head_timeout, self._give_up)

    def _rest(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        if self.transport.is_closing():
            return
        # Browsers open connections ahead of need; who has asked nothing is answered nothing.
        began, _ = self.conn.trailing_data
        if began:
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
