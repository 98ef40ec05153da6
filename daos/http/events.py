"""A stream of server-sent events that ends when its client leaves, its token is revoked, or the server stops."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import ExitStack, aclosing

import anyio
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from daos.http.streams import Streams


class EventStream(StreamingResponse):
    """The response to a subscription over HTTP."""

    def __init__(
        self,
        events: AsyncGenerator[str, None],
        headers: Mapping[str, str],
        streams: Streams,
        authorization: str | None,
        held: ExitStack,
    ) -> None:
        super().__init__(events, headers=headers)
        self._events = events
        self._streams = streams
        self._authorization = authorization
        self._held = held
        self._ended = False  # by the server, before the last event

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._held:
            async with aclosing(self._events), anyio.create_task_group() as group:
                group.start_soon(self._end_in_time, group.cancel_scope, name="token of an event stream")
                await super().__call__(scope, receive, send)
                group.cancel_scope.cancel()
            if self._ended:
                # Without the event `complete`, so that the client reconnects.
                await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _end_in_time(self, scope: anyio.CancelScope) -> None:
        await self._streams.revoked(lambda: self._authorization)
        self._ended = True
        scope.cancel()
