"""graphql-transport-ws on Strawberry's handler, as strict as the protocol's reference server.

As the protocol requires, an invalid message closes the socket with 4400; an invalid operation is answered with an
`error`, and the other operations of the socket continue.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any, cast

from graphql import GraphQLError
from starlette.websockets import WebSocketDisconnect, WebSocketState
from strawberry.asgi import ASGIWebSocketAdapter
from strawberry.http.exceptions import NonJsonMessageReceived, NonTextMessageReceived, WebSocketDisconnected
from strawberry.schema.schema import StreamResult
from strawberry.subscriptions.protocols.graphql_transport_ws.handlers import (
    BaseGraphQLTransportWSHandler,
    Operation,
    _OperationStreamClosed,
)
from strawberry.subscriptions.protocols.graphql_transport_ws.types import (
    ConnectionInitMessage,
    Message,
    SubscribeMessage,
)

from daos.http.body import check_text, load
from daos.http.connection import ADMITTED
from daos.http.refusals import BadRequest, TooManyStreams
from daos.http.streams import Streams
from schema import Schema
from schema.answer import Answer, AnswerTooLarge, Share
from schema.context import Context
from schema.errors import MASKED, mask
from schema.sharing import SharedData

MAX_REASON = 120  # bytes; a close frame has room for 123
TOO_MANY_REQUESTS: dict[str, Any] = {"code": "TOO_MANY_REQUESTS", "status": 429}
REVOKED = (4403, "Forbidden")
TOO_MANY = (1013, "Too many connections")  # "try again later", which clients do


@dataclass(kw_only=True)
class SocketContext(Context):
    """The context of a WebSocket's operations, and what the WebSocket holds while it is open."""

    streams: Streams
    held: ExitStack = field(default_factory=ExitStack)


def authorization(parameters: Mapping[str, object] | None) -> str | None:
    """Return the authorization in the payload of connection_init, whatever the letter case of its name."""
    for name, value in (parameters or {}).items():
        if name.lower() == "authorization" and isinstance(value, str):
            return value
    return None


class Adapter(ASGIWebSocketAdapter):
    """Strawberry's WebSocket adapter, robust against malformed messages and disconnects."""

    _leaving: Share | None = None  # of the last answer; when the next message is sent, the client has received it

    async def iter_json(self, *, ignore_parsing_errors: bool = False) -> AsyncGenerator[object, None]:
        # Strawberry's own fails on deep nesting and long integers, and closes with 1006 (0.341.2).
        while not self._closed:
            message = await self.ws.receive()
            if message["type"] == "websocket.disconnect" or self._closed:
                return  # a message that arrives after our close frame must not be executed
            text = message.get("text")
            if text is None:
                raise NonTextMessageReceived
            try:
                yield load("The message", text)
            except BadRequest as error:
                raise NonJsonMessageReceived from error

    async def send_json(self, message: Mapping[str, object]) -> None:
        if self._closed:
            raise WebSocketDisconnected
        if message["type"] == "connection_ack":
            self._admit()  # before the client receives the acknowledgment
        text = await self._encoded(message)
        if text is None:
            await super().send_json(message)
        else:
            try:
                await self.ws.send_text(text)
            except WebSocketDisconnect as error:
                raise WebSocketDisconnected from error
        if self._leaving is not None:
            self._leaving.release()
        data = _data(message)
        self._leaving = None if data is None else data.share

    async def _encoded(self, message: Mapping[str, object]) -> str | None:
        """Return the message as JSON; None if it is small, and Strawberry encodes it in one go."""
        data, encoder = _data(message), cast(Schema, self.view.schema).encoder
        if data is None:
            return None
        try:
            if isinstance(data, SharedData):
                assert len(cast(dict[str, object], message["payload"])) == 1
                text = await data.text(encoder)
                return f'{{"id":{json.dumps(message["id"])},"type":"next","payload":{{"data":{text}}}}}'
            return await encoder.encode(message) if data.is_large else None
        except AnswerTooLarge as error:
            return json.dumps({**message, "payload": {"data": None, "errors": [error.formatted]}})

    def _admit(self) -> None:
        """Accept messages of the usual size from now on."""
        extensions = self.ws.scope.get("extensions") or {}
        if ADMITTED in extensions:  # not under another server
            extensions[ADMITTED]()

    async def close(self, code: int, reason: str) -> None:
        if self._closed:
            return
        # With a longer reason the close frame would be malformed, and the client would see 1006 (0.341.2).
        short = reason.encode()[:MAX_REASON].decode(errors="ignore")
        with suppress(WebSocketDisconnected):
            await super().close(code, short)

    @property
    def _closed(self) -> bool:
        state: WebSocketState = self.ws.application_state
        return state is WebSocketState.DISCONNECTED


class Handler(BaseGraphQLTransportWSHandler[SocketContext, None]):
    """One websocket."""

    async def handle(self) -> None:
        async with asyncio.TaskGroup() as group:
            watch = group.create_task(self._end_when_revoked(), name="token of a WebSocket")
            try:
                await super().handle()
            finally:
                watch.cancel()

    async def shutdown(self) -> None:
        self.context.held.close()
        await super().shutdown()

    async def handle_message(self, message: Message) -> None:
        wrong = what_is_wrong(message)
        if wrong is not None:
            await self.handle_invalid_message(wrong)
        else:
            await super().handle_message(message)

    async def handle_connection_init(self, message: ConnectionInitMessage) -> None:
        # The protocol allows null, but Strawberry closes with 4400 (0.341.2).
        given: ConnectionInitMessage = {"type": "connection_init", "payload": message.get("payload") or {}}
        try:
            await super().handle_connection_init(given)
        except TooManyStreams:
            await self.websocket.close(*TOO_MANY)

    async def handle_subscribe(self, message: SubscribeMessage) -> None:
        # Like Strawberry, whose error has no code (0.341.2).
        most = self.max_subscriptions_per_connection
        if self.connection_acknowledged and message["id"] not in self.operations:
            if most is not None and len(self.operations) >= most:
                await self._refuse(message["id"], f"The connection already has {most} operations.", TOO_MANY_REQUESTS)
                return
            try:
                check_text(message["payload"])
            except BadRequest as error:
                await self._refuse(message["id"], str(error), error.extensions)
                return
        # The protocol has no empty name; clients send it to mean none.
        message["payload"]["operationName"] = message["payload"].get("operationName") or None
        await super().handle_subscribe(message)

    async def handle_task_exception(self, error: Exception) -> None:
        if not isinstance(error, WebSocketDisconnected):
            mask(error, "a WebSocket")

    async def _send_result_stream(self, operation: Operation[SocketContext, None], result_source: StreamResult) -> None:
        # An exception outside of execution would end the operation with `complete`, as if it succeeded (0.341.2).
        try:
            await super()._send_result_stream(operation, result_source)
        except (WebSocketDisconnected, _OperationStreamClosed):
            raise
        except Exception as error:  # noqa: BLE001 - the socket has other operations
            await operation.send_initial_errors([GraphQLError(MASKED, extensions=mask(error, "a WebSocket"))])

    @staticmethod
    def _get_pre_execution_close_reason(error: GraphQLError) -> str | None:
        """Return None: a syntax error is the operation's `error`; Strawberry would close the socket (0.341.2)."""
        return None

    async def _refuse(self, operation_id: str, message: str, extensions: dict[str, Any]) -> None:
        error = GraphQLError(message, extensions=extensions)
        await self.send_message({"id": operation_id, "type": "error", "payload": [error.formatted]})

    async def _end_when_revoked(self) -> None:
        revoked = await self.context.streams.revoked(lambda: authorization(self.context.connection_params))
        if revoked:
            await self.websocket.close(*REVOKED)
            for operation_id in list(self.operations):
                await self.cleanup_operation(operation_id)


def _data(message: Mapping[str, object]) -> Answer | None:
    """Return the answer in a message, or None."""
    payload = message.get("payload")
    data = payload["data"] if message["type"] == "next" and isinstance(payload, dict) else None
    return data if isinstance(data, Answer) else None


def what_is_wrong(message: object) -> str | None:
    """Return why `message` violates the protocol, None if it is valid."""
    if not isinstance(message, dict):
        return "A message must be a JSON object"
    kind = message.get("type")
    if not isinstance(kind, str) or kind not in {"connection_init", "ping", "pong", "subscribe", "complete"}:
        return "The message's type is unknown"
    if kind in {"connection_init", "ping", "pong"}:
        return None if isinstance(message.get("payload"), dict | None) else f"{kind}: payload must be an object or null"
    if not isinstance(message.get("id"), str) or not message["id"] or not _is_unicode(message["id"]):
        return f"{kind}: id must be a non-empty string of valid Unicode"
    return None if kind == "complete" else _what_is_wrong_with(message.get("payload"))


def _what_is_wrong_with(payload: object) -> str | None:
    if not isinstance(payload, dict):
        return "subscribe: payload must be an object"
    if not isinstance(payload.get("query"), str):
        return "subscribe: query must be a string"
    if not isinstance(payload.get("operationName"), str | None):
        return "subscribe: operationName must be a string or null"
    for name in ("variables", "extensions"):
        if not isinstance(payload.get(name), dict | None):
            return f"subscribe: {name} must be an object or null"
    return None


def _is_unicode(text: str) -> bool:
    try:
        check_text(text)
    except BadRequest:
        return False
    return True
