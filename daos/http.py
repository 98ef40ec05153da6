"""GraphQL over HTTP and websocket, on Strawberry's own classes."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket
from strawberry.asgi import GraphQL
from strawberry.exceptions import ConnectionRejectionError
from strawberry.subscriptions import GRAPHQL_TRANSPORT_WS_PROTOCOL

from daos.auth import Authenticator
from db.engine import Database
from resolvers.errors import Unauthenticated
from runner.broadcast import Broadcast
from runner.engine import Engine
from schema import Schema
from schema.context import Context

INIT_TIMEOUT = timedelta(seconds=10)


class GraphQLApp(GraphQL[Context, None]):
    """The endpoint: who has no token is told nothing."""

    def __init__(
        self, schema: Schema, db: Database, broadcast: Broadcast, engine: Engine, authenticator: Authenticator
    ) -> None:
        super().__init__(
            schema,
            graphql_ide=None,
            subscription_protocols=(GRAPHQL_TRANSPORT_WS_PROTOCOL,),  # the legacy protocol had its own holes
            connection_init_wait_timeout=INIT_TIMEOUT,
        )
        self._db = db
        self._broadcast = broadcast
        self._engine = engine
        self._authenticator = authenticator

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            request = Request(scope)
            if request.method == "GET" and "text/html" in request.headers.get("accept", ""):
                await RedirectResponse(f"{request.url.path.rstrip('/')}/ide/", 303)(scope, receive, send)
                return
            try:
                scope["state"]["principal"] = await self._authenticator.principal(request.headers.get("authorization"))
            except Unauthenticated as error:
                await _refuse(error)(scope, receive, send)
                return
        await super().__call__(scope, receive, send)

    async def get_context(self, request: Request | WebSocket, response: Response | WebSocket) -> Context:
        principal = request.scope["state"].get("principal")
        return Context(self._db, self._broadcast, self._engine, principal)

    async def on_ws_connect(self, context: Context) -> Any:
        try:
            context.principal = await self._authenticator.principal(_authorization(context.connection_params or {}))
        except Unauthenticated as error:
            raise ConnectionRejectionError from error
        return await super().on_ws_connect(context)


def _authorization(parameters: Mapping[str, object]) -> str | None:
    """The token in connection_init's payload, whatever letter case a client writes its name in."""
    for name, value in parameters.items():
        if name.lower() == "authorization" and isinstance(value, str):
            return value
    return None


def _refuse(error: Unauthenticated) -> Response:
    extensions = {"code": error.code.value, "status": error.status}
    return JSONResponse(
        {"errors": [{"message": str(error), "extensions": extensions}]},
        status_code=error.status,
        headers={"WWW-Authenticate": "Bearer"},
    )
