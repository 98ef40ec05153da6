"""GraphQL over HTTP and WebSocket, based on Strawberry's classes.

A request passes the gate and authentication before its body is read.  Strawberry's own `run` responds with plain text
and does not follow GraphQL over HTTP; this module does, including the statuses.
"""

# Longer than 300 lines: one class of Strawberry is overridden, method by method.

import logging
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any, cast

from graphql import GraphQLError
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import RedirectResponse, Response
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket
from strawberry.asgi import GraphQL
from strawberry.exceptions import ConnectionRejectionError
from strawberry.http import GraphQLHTTPResponse, process_result
from strawberry.schema.exceptions import CannotGetOperationTypeError, InvalidOperationTypeError
from strawberry.subscriptions import GRAPHQL_SSE_PROTOCOL, GRAPHQL_TRANSPORT_WS_PROTOCOL
from strawberry.types import ExecutionResult, SubscriptionExecutionResult
from strawberry.types.execution import PreExecutionError
from strawberry.types.graphql import OperationType

from daos.auth.tokens import Authenticator
from daos.http import body, refusals
from daos.http.body import Asked, BodyLimits
from daos.http.events import EventStream
from daos.http.negotiation import EVENTS, GRAPHQL_RESPONSE, Answer, negotiate
from daos.http.origin import ANY, Gate
from daos.http.pieces import InPieces
from daos.http.refusals import Refusal
from daos.http.streams import Streams
from daos.http.websocket import Adapter, Handler, SocketContext, authorization
from daos.monitoring.logs import request_id, request_id_of
from db.broadcast import Broadcast
from db.database import Database
from resolvers.audit import RETENTION
from resolvers.errors import Unauthenticated
from runner.engine.base import Engine
from schema import Schema
from schema.answer import AT_ONCE, AnswerTooLarge, Outstanding
from schema.answer import Answer as MeasuredAnswer
from schema.context import Context
from schema.errors import RequestCode, mask

logger = logging.getLogger(__name__)

# The draft of GraphQL over HTTP requires 422 since 2026; its public audits and clients still expect 400.
REQUEST_ERROR = 400
SERVER_ERROR = 500
PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, POST",
    "Access-Control-Allow-Headers": "authorization, content-type, x-request-id",
    "Access-Control-Max-Age": "600",  # seconds
}
READING = {OperationType.QUERY}
READING_AND_WRITING = {OperationType.QUERY, OperationType.MUTATION}


@dataclass(frozen=True)
class Transport:
    """The limits of the endpoint, and the hosts and origins that it accepts."""

    allowed_hosts: str = ANY
    allowed_origins: str = ""
    body: BodyLimits = field(default_factory=BodyLimits)
    head_timeout: float = 10.0  # seconds for a request's line and headers
    max_subscriptions: int = 50  # of a WebSocket
    init_timeout: float = 10.0  # seconds in which a WebSocket must send its token


class Encoded(dict[str, Any]):
    """A response that is already encoded: Strawberry's encoder would block the event loop meanwhile (0.341.2)."""

    def __init__(self, response: Mapping[str, Any], text: str) -> None:
        super().__init__(response)
        self.text = text


class GraphQLApp(GraphQL[SocketContext, None]):
    """The endpoint `/graphql`; without a valid token it reveals nothing."""

    websocket_adapter_class = Adapter
    graphql_transport_ws_handler_class = Handler

    def __init__(
        self,
        schema: Schema,
        *,
        db: Database,
        broadcast: Broadcast,
        engine: Engine,
        authenticator: Authenticator,
        streams: Streams,
        transport: Transport,
        retention: timedelta = RETENTION,
    ) -> None:
        super().__init__(
            schema,
            graphql_ide=None,
            # The legacy WebSocket protocol has security flaws of its own.
            subscription_protocols=(GRAPHQL_TRANSPORT_WS_PROTOCOL, GRAPHQL_SSE_PROTOCOL),
            connection_init_wait_timeout=timedelta(seconds=transport.init_timeout),
            max_subscriptions_per_connection=transport.max_subscriptions,
            allowed_origins=(ANY,),  # the gate has checked them already
        )
        self._encoder = schema.encoder
        self._max_answer = schema.limits.answer
        self._outstanding = Outstanding(AT_ONCE * schema.limits.answer)
        self._db = db
        self._broadcast = broadcast
        self._engine = engine
        self._authenticator = authenticator
        self._streams = streams
        self._gate = Gate(transport.allowed_hosts, transport.allowed_origins)
        self._body_limits = transport.body
        self._retention = retention  # of the audit log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._serve_websocket(WebSocket(scope, receive, send))
            return
        request = Request(scope, receive)
        request_id.set(request_id_of(request.headers.get("x-request-id")))
        try:
            response = await self._respond(request)
        except Refusal as refusal:
            response = self._refuse(request, refusal)
        except ClientDisconnect:
            return
        except Exception as error:  # noqa: BLE001 - the client receives a GraphQL error
            response = self._refuse(request, refusals.Unexpected(mask(error, "the endpoint")))
        await response(scope, receive, send)

    async def _serve_websocket(self, websocket: WebSocket) -> None:
        request_id.set(request_id_of(websocket.headers.get("x-request-id")))
        try:
            self._gate.check(websocket.headers)
        except Refusal as refusal:
            _log(websocket, refusal)
            await self.reject_websocket(websocket)
        else:
            await self.run(websocket)

    async def _respond(self, request: Request) -> Response:
        if request.method == "GET" and "text/html" in _accepted(request):
            # Relative, because a proxy may have removed a prefix; the browser replaces the last segment of the path.
            return RedirectResponse("graphql/ide/", 303)
        self._gate.check(request.headers)
        if request.method == "OPTIONS" and self._gate.allows(request.headers.get("origin")):
            return Response(status_code=204, headers={**self._headers(request), **PREFLIGHT})
        if request.method not in {"GET", "POST"}:
            raise refusals.MethodNotAllowed
        try:
            shown = request.headers.get("authorization")
            principal = await self._authenticator.principal(shown)
            recheck = partial(self._authenticator.recheck, shown)
            reserve = partial(self._streams.reserve, principal.key)
            share = partial(self._outstanding.share, principal.key)
            context = Context(
                **self._parts(request), principal=principal, recheck=recheck, reserve=reserve, share=share
            )
        except Unauthenticated as error:
            raise refusals.NotAuthenticated(str(error)) from error
        answer = negotiate(_accepted(request))
        if answer is None:
            raise refusals.NotAcceptable
        if request.method == "GET":
            return await self._query(request, body.from_url(request), context, answer)
        asked = body.parse(await body.read(request, self._body_limits))
        return await self._operation(request, asked, context, answer)

    async def _query(self, request: Request, asked: Asked, context: Context, answer: Answer) -> Response:
        """Answer a GET."""
        if answer.media_type == EVENTS:
            raise refusals.NotAcceptable
        try:
            result = await self._execute(asked, context, READING)
        except InvalidOperationTypeError as error:
            raise refusals.MethodNotAllowed("POST") from error
        return await self._result(request, result, answer)

    async def _operation(self, request: Request, asked: Asked, context: Context, answer: Answer) -> Response:
        """Answer a POST."""
        if answer.media_type == EVENTS:
            return await self._events(request, asked, context)
        try:
            result = await self._execute(asked, context, READING_AND_WRITING)
        except InvalidOperationTypeError as error:
            if not answer.events:
                raise refusals.NotAcceptable from error
            return await self._events(request, asked, context)
        return await self._result(request, result, answer)

    async def _execute(self, asked: Asked, context: Context, allowed: set[OperationType]) -> ExecutionResult:
        """Execute an operation of an allowed type.  Raises: InvalidOperationTypeError."""
        try:
            return await self.schema.execute(
                asked.query,
                variable_values=asked.variables,
                context_value=context,
                operation_name=asked.operation_name,
                allowed_operation_types=allowed,
                operation_extensions=asked.extensions,
            )
        except CannotGetOperationTypeError:
            extensions = {"code": RequestCode.OPERATION_RESOLUTION_FAILURE.value, "status": 400}
            unknown = GraphQLError("The document has no operation with this operationName.", extensions=extensions)
            return PreExecutionError(data=None, errors=[unknown])

    async def _result(self, request: Request, result: ExecutionResult, answer: Answer) -> Response:
        response = InPieces(
            self.encode_json(await self.process_result(request, result)),
            _status(result, answer),
            self._headers(request),
            f"{answer.media_type}; charset=utf-8",
        )
        response.share = result.data.share if isinstance(result.data, MeasuredAnswer) else None
        return response

    async def _events(self, request: Request, asked: Asked, context: Context) -> Response:
        """Respond with server-sent events, one connection per operation, as in the graphql-sse protocol."""
        held = ExitStack()
        held.enter_context(self._streams.open(context.asker.key))
        result = await self.schema.stream(
            asked.query,
            variable_values=asked.variables,
            context_value=context,
            operation_name=asked.operation_name,
            operation_extensions=asked.extensions,
        )
        transport = self._get_stream_transport("sse")
        assert transport is not None
        events = self._stream_result(request, cast(SubscriptionExecutionResult, result), transport)
        headers = {**self._headers(request), **transport.headers}
        return EventStream(events(), headers, self._streams, request.headers.get("authorization"), held)

    async def process_result(self, request: Request, result: ExecutionResult) -> GraphQLHTTPResponse:
        response = _formatted(result)
        data = result.data
        if not isinstance(data, MeasuredAnswer) or not data.is_large:
            return response
        try:
            return cast(GraphQLHTTPResponse, Encoded(response, await self._encoder.encode(response)))
        except AnswerTooLarge as error:
            return {"data": None, "errors": [error.formatted]}

    def encode_json(self, data: object) -> str | bytes:
        return data.text if isinstance(data, Encoded) else super().encode_json(data)

    async def get_context(self, request: Request | WebSocket, response: Response | WebSocket) -> SocketContext:
        return SocketContext(**self._parts(request), streams=self._streams)

    async def on_ws_connect(self, context: SocketContext) -> Any:
        try:
            shown = authorization(context.connection_params)
            context.identify(await self._authenticator.principal(shown))
            context.recheck = partial(self._authenticator.recheck, shown)
        except Unauthenticated as error:
            raise ConnectionRejectionError from error
        context.reserve = partial(self._streams.reserve, context.asker.key)
        context.share = partial(self._outstanding.share, context.asker.key)
        context.held.enter_context(self._streams.open(context.asker.key))
        return await super().on_ws_connect(context)

    def _parts(self, connection: HTTPConnection) -> dict[str, Any]:
        """Return the arguments of a context that do not depend on the principal."""
        return {
            "db": self._db,
            "broadcast": self._broadcast,
            "engine": self._engine,
            "address": connection.client.host if connection.client else None,
            "retention": self._retention,
            "max_answer": self._max_answer,
        }

    def _refuse(self, request: Request, refusal: Refusal) -> Response:
        _log(request, refusal)
        answer = negotiate(_accepted(request))
        return refusals.respond(refusal, answer.media_type if answer else "", self._headers(request))

    def _headers(self, request: Request) -> dict[str, str]:
        headers = {
            "Cache-Control": "no-store",
            "Vary": "Accept",
            "X-Content-Type-Options": "nosniff",
            "X-Request-ID": request_id.get() or "",
        }
        origin = request.headers.get("origin")
        if origin is not None and self._gate.allows(origin):
            headers |= {"Access-Control-Allow-Origin": origin, "Vary": "Accept, Origin"}
        return headers


def _accepted(request: Request) -> str:
    """Return the Accept header, which may be repeated."""
    return ", ".join(request.headers.getlist("accept"))


def _is_request_error(result: ExecutionResult) -> bool:
    """Whether nothing was executed; the response then has no `data`."""
    if isinstance(result, PreExecutionError):
        return True
    # Invalid variables are detected by the executor before it executes any field.
    return result.data is None and any(error.path is None for error in result.errors or ())


def _formatted(result: ExecutionResult) -> GraphQLHTTPResponse:
    response = process_result(result)
    if _is_request_error(result):
        del response["data"]
    return response


def _status(result: ExecutionResult, answer: Answer) -> int:
    if not _is_request_error(result):
        return 200
    status = max((error.extensions or {}).get("status", 500) for error in result.errors or ())
    if status >= SERVER_ERROR:
        return int(status)
    return REQUEST_ERROR if answer.media_type == GRAPHQL_RESPONSE else 200


def _log(connection: HTTPConnection, refusal: Refusal) -> None:
    client = connection.client.host if connection.client else None
    fields = {"code": refusal.extensions["code"], "status": refusal.extensions["status"], "client": client}
    logger.info("refused", extra={"fields": fields})
