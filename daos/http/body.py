"""Reads requests strictly: a body within limits, JSON in UTF-8, with the members of GraphQL over HTTP.

Strawberry's own parser responds with 500 to `"x"`, `1`, invalid UTF-8, deep nesting, and long integers, accepts NaN
and `text/application/json`, and has no limits (0.341.2).
"""

import asyncio
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NoReturn

from starlette.requests import Request

from daos.http.refusals import BadRequest, BodyTooLarge, TooSlowBody, UnsupportedMediaType, URLTooLong

MAX_URL = 16 * 1024  # bytes
SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


@dataclass(frozen=True)
class Asked:
    """The members of a GraphQL request."""

    query: str
    variables: dict[str, Any] | None
    operation_name: str | None
    extensions: dict[str, Any] | None


@dataclass(frozen=True)
class BodyLimits:
    """The limits of a request body."""

    size: int = 8 * 1024 * 1024  # bytes; a package has up to 5 MiB of text, and JSON's escapes add to that
    pause: float = 10.0  # seconds between two chunks
    time: float = 30.0  # seconds for the whole body


async def read(request: Request, limits: BodyLimits) -> bytes:
    """Read the body of a POST.  Raises: UnsupportedMediaType, BodyTooLarge, TooSlowBody."""
    if not _is_json(request.headers.get("content-type", "")):
        raise UnsupportedMediaType
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise UnsupportedMediaType  # a few compressed bytes could expand to gigabytes
    length = request.headers.get("content-length", "")
    if length.isdecimal() and (len(length) > len(str(limits.size)) or int(length) > limits.size):
        raise BodyTooLarge(limits.size)
    body = bytearray()
    stream = request.stream()
    try:
        async with asyncio.timeout(limits.time):
            while True:
                async with asyncio.timeout(limits.pause):
                    piece = await anext(stream, None)
                if piece is None:
                    return bytes(body)
                body += piece
                if len(body) > limits.size:
                    raise BodyTooLarge(limits.size)
    except TimeoutError as error:
        raise TooSlowBody from error
    finally:
        await stream.aclose()


def parse(body: bytes) -> Asked:
    """Parse a body.  Raises: BadRequest."""
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise BadRequest("The body is not UTF-8.") from error
    asked = load("The body", text)
    if SURROGATE.search(text):
        check_text(asked)
    return _asked(asked)


def from_url(request: Request) -> Asked:
    """Parse the URL of a GET.  Raises: BadRequest, URLTooLong."""
    if len(request.scope["query_string"]) > MAX_URL:
        raise URLTooLong
    given = dict(request.query_params)
    members: dict[str, object] = {name: given.get(name) for name in ("query", "operationName")}
    for name in ("variables", "extensions"):
        members[name] = load(name, given[name]) if given.get(name) else None
    check_text(members)
    return _asked(members)


def load(what: str, text: str) -> object:
    """Parse the JSON in `text`; `what` names it in the message.  Raises: BadRequest."""
    try:
        value: object = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"{what} is not JSON.") from error
    return value


def check_text(value: object) -> None:
    """Check that all strings in a JSON value are valid Unicode; an unpaired surrogate is not, and cannot be stored.

    Raises: BadRequest.
    """
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise BadRequest("A string contains an unpaired surrogate.") from error


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _asked(members: object) -> Asked:
    if not isinstance(members, dict):
        raise BadRequest("The body must be one JSON object." if isinstance(members, list) else None)
    query = members.get("query")
    if not isinstance(query, str) or not query:
        raise BadRequest("query must be a GraphQL document.")
    name = members.get("operationName")
    if not isinstance(name, str | None):
        raise BadRequest("operationName must be a string or null.")
    return Asked(query, _mapping(members, "variables"), name or None, _mapping(members, "extensions"))


def _mapping(members: Mapping[str, object], name: str) -> dict[str, Any] | None:
    value = members.get(name)
    if not isinstance(value, dict | None):
        raise BadRequest(f"{name} must be an object or null.")
    return value


@lru_cache(maxsize=64)
def _is_json(content_type: str) -> bool:
    name, *parameters = (part.strip().lower() for part in content_type.split(";"))
    charsets = [
        value.strip().strip('"') for key, _, value in (part.partition("=") for part in parameters) if key == "charset"
    ]
    return name == "application/json" and set(charsets) <= {"utf-8", "utf8"}
