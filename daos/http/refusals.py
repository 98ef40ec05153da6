"""Requests that are refused before they become operations.  The docstring of a class is the message to the client."""

import json
from collections.abc import Mapping

from starlette.responses import Response

from daos.http.negotiation import GRAPHQL_RESPONSE, JSON
from resolvers.errors import ErrorCode


class Refusal(Exception):
    """The request is malformed."""

    status = 400
    code = "BAD_REQUEST"

    def __init__(self, message: str | None = None, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message or self.__doc__)
        self.headers = headers or {}

    @property
    def extensions(self) -> dict[str, object]:
        return {"code": self.code, "status": self.status}


class BadRequest(Refusal):
    """The request is malformed."""


class NotAuthenticated(Refusal):
    """A valid access token is needed: send the header 'Authorization: Bearer TOKEN'."""

    status = 401
    code = ErrorCode.UNAUTHENTICATED.value

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message, headers={"WWW-Authenticate": "Bearer"})


class ForeignHost(Refusal):
    """The server does not accept the name in the header 'Host'; use another one, or add it to DAOS_ALLOWED_HOSTS."""

    status = 403
    code = ErrorCode.FORBIDDEN.value


class ForeignOrigin(Refusal):
    """The origin in the header 'Origin' is not allowed; add it to DAOS_ALLOWED_ORIGINS."""

    status = 403
    code = ErrorCode.FORBIDDEN.value


class MethodNotAllowed(Refusal):
    """The method is not allowed; use POST, or GET for queries."""

    status = 405
    code = "METHOD_NOT_ALLOWED"

    def __init__(self, allowed: str = "GET, POST") -> None:
        super().__init__(headers={"Allow": allowed})


class NotAcceptable(Refusal):
    """Accept must allow application/graphql-response+json or application/json; for subscriptions text/event-stream."""

    status = 406
    code = "NOT_ACCEPTABLE"


class TooSlow(Refusal):
    """The request did not arrive in time."""

    status = 408
    code = "REQUEST_TIMEOUT"

    def __init__(self) -> None:
        super().__init__(headers={"Connection": "close"})


class TooSlowHead(TooSlow):
    """The request's headers did not arrive in time."""


class TooSlowBody(TooSlow):
    """The request's body did not arrive in time."""


class BodyTooLarge(Refusal):
    """The request body exceeds the limit; send less, or raise DAOS_MAX_BODY on the server."""

    status = 413
    code = "PAYLOAD_TOO_LARGE"  # the connection stays open, or a client that is still sending could not read this

    def __init__(self, most: int) -> None:
        super().__init__(f"The request body has more than {most} bytes; send less, or raise DAOS_MAX_BODY.")


class URLTooLong(Refusal):
    """The URL is too long; use POST."""

    status = 414
    code = "URI_TOO_LONG"


class UnsupportedMediaType(Refusal):
    """The body must be uncompressed JSON in UTF-8; send the header 'Content-Type: application/json'."""

    status = 415
    code = "UNSUPPORTED_MEDIA_TYPE"


class TooManyStreams(Refusal):
    """The token already has as many connections as DAOS_MAX_STREAMS allows."""

    status = 429
    code = "TOO_MANY_REQUESTS"

    def __init__(self) -> None:
        super().__init__(headers={"Retry-After": "10"})


class Unexpected(Refusal):
    """Internal server error."""

    status = 500

    def __init__(self, extensions: dict[str, object]) -> None:
        super().__init__()
        self._extensions = extensions

    @property
    def extensions(self) -> dict[str, object]:
        return self._extensions


def respond(refusal: Refusal, media_type: str, headers: Mapping[str, str]) -> Response:
    """Return the response for a refusal; `media_type` is the one that the client accepts."""
    body = json.dumps({"errors": [{"message": str(refusal), "extensions": refusal.extensions}]})
    # Apollo Client reads the code of a 4xx only from a response of the GraphQL media type.
    kind = GRAPHQL_RESPONSE if media_type == GRAPHQL_RESPONSE else JSON
    return Response(body, refusal.status, {**headers, **refusal.headers}, f"{kind}; charset=utf-8")
