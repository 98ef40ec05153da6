"""Gives each error its code; masks and logs unexpected errors."""

import logging
import re
import secrets
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import Any

from graphql import GraphQLError, GraphQLSyntaxError
from strawberry.exceptions import MissingQueryError
from strawberry.extensions import SchemaExtension
from strawberry.schema.exceptions import CannotGetOperationTypeError, InvalidOperationTypeError
from strawberry.types import ExecutionContext
from strawberry.types.graphql import OperationType

from db.storage import is_full
from resolvers.errors import DaosError, ErrorCode, InvalidInput, Problem, StorageFull
from schema.limits import TooSlow, exceeded

logger = logging.getLogger(__name__)

# Where graphql-core repeats its input, which may contain a secret.
GIVEN = re.compile(r"(cannot represent [^:]*value): .*|[,;.]? [Ff]ound: .*", re.DOTALL)
SUGGESTION = re.compile(r" Did you mean .*?\?(?=$| Found: )", re.DOTALL)

# Hints for the most common mistakes, which graphql-core reports without a remedy.
SEE_THE_SCHEMA = " See the schema in the documentation of GraphiQL, or print it with `daos schema`."
HINTS = (
    (
        re.compile(r"^Cannot query field|^Unknown (?:argument|type|directive)|does not exist in '\w+' enum"),
        SEE_THE_SCHEMA,
    ),
    (re.compile(r"type 'VariableInput' (?:not )?to"), " Variables are a list of objects: {name, value}."),
)


class RequestCode(StrEnum):
    """Codes of requests that are not a valid operation; the names are Apollo's, which clients know."""

    GRAPHQL_PARSE_FAILED = "GRAPHQL_PARSE_FAILED"
    GRAPHQL_VALIDATION_FAILED = "GRAPHQL_VALIDATION_FAILED"
    OPERATION_RESOLUTION_FAILURE = "OPERATION_RESOLUTION_FAILURE"
    TIMEOUT = "TIMEOUT"


CODES: dict[type[BaseException], tuple[str, int]] = {
    MissingQueryError: (RequestCode.GRAPHQL_PARSE_FAILED, 400),
    CannotGetOperationTypeError: (RequestCode.OPERATION_RESOLUTION_FAILURE, 400),
    InvalidOperationTypeError: (RequestCode.OPERATION_RESOLUTION_FAILURE, 400),
    TooSlow: (RequestCode.TIMEOUT, 504),
}


class Errors(SchemaExtension):
    """Marks validation errors, which otherwise look the same as those of later stages."""

    def on_validate(self) -> Iterator[None]:
        yield
        for error in self.execution_context.pre_execution_errors or ():
            if not error.extensions:
                _refuse(error, RequestCode.GRAPHQL_VALIDATION_FAILED)


def describe(errors: Sequence[GraphQLError], execution_context: ExecutionContext | None) -> None:
    """Set the `code` and `status` of each error; mask and log unexpected ones."""
    for error in errors:
        if "code" not in (error.extensions or {}):
            _describe(error, execution_context)


def code_of(error: BaseException) -> str:
    """Return the code that a client receives for the exception."""
    if isinstance(error, DaosError):
        return error.code.value
    if is_full(error):
        return StorageFull.code.value
    code, _ = CODES.get(type(error), (ErrorCode.INTERNAL_SERVER_ERROR.value, 500))
    return str(code)


def mask(cause: BaseException, where: str) -> dict[str, Any]:
    """Log an unexpected error and return the `extensions` for the client, with the id of the log line."""
    error_id = secrets.token_hex(8)
    logger.error("unexpected error at %s", where, exc_info=cause, extra={"fields": {"error_id": error_id}})
    return {"code": ErrorCode.INTERNAL_SERVER_ERROR.value, "status": 500, "errorId": error_id}


MASKED = "Internal server error."


def _describe(error: GraphQLError, execution_context: ExecutionContext | None) -> None:
    cause = _cause(error)
    if isinstance(cause, DaosError):
        if isinstance(cause, StorageFull):
            error.message = str(cause)  # instead of the database's own message
        error.extensions = {
            "code": cause.code.value,
            "status": cause.status,
            **{_camel(name): value for name, value in cause.extensions.items()},
            **_problems(cause, error, execution_context),
        }
    elif cause is not None and type(cause) in CODES:
        code, status = CODES[type(cause)]
        error.message = cause.__doc__ or "" if isinstance(cause, TooSlow) else error.message
        error.extensions = {"code": str(code), "status": status}
    # Without a path and a location it was raised outside of execution: in the source of an event, or in a hook.
    elif cause is not None and (error.path is not None or error.nodes is None):
        error.extensions = mask(cause, ".".join(str(part) for part in error.path or ()) or "the operation")
        error.message = MASKED
    elif isinstance(error, GraphQLSyntaxError):
        _refuse(error, RequestCode.GRAPHQL_PARSE_FAILED)
        if (better := exceeded(error)) is not None:
            error.message, error.extensions = better.message, better.extensions
    else:
        _refuse(error, ErrorCode.BAD_USER_INPUT)


def _refuse(error: GraphQLError, code: StrEnum) -> None:
    # `disable_field_suggestions` keeps those for arguments, types, enums and directives (Strawberry 0.341.2).
    message = GIVEN.sub(r"\1.", SUGGESTION.sub("", error.message))
    hint = next((hint for pattern, hint in HINTS if pattern.search(message)), "")
    error.message = f"{message}{hint}"
    error.extensions = {"code": code.value, "status": 400}


def _cause(error: GraphQLError) -> BaseException | None:
    """Return the exception inside graphql-core's wrappers; None if graphql-core itself found the error."""
    cause: BaseException | None = error.original_error
    while isinstance(cause, GraphQLError):
        cause = cause.original_error
    return StorageFull() if is_full(cause) else cause


def _problems(cause: DaosError, error: GraphQLError, execution_context: ExecutionContext | None) -> dict[str, Any]:
    if not isinstance(cause, InvalidInput):
        return {}
    # A mutation's arguments are inside its one argument `input`; those of fields below it are not.
    top = error.path is not None and len(error.path) == 1
    mutation = execution_context is not None and execution_context.operation_type is OperationType.MUTATION
    prefix = ["input"] if top and mutation else []
    problems = [_formatted(problem, prefix) for problem in cause.problems]
    if len(problems) == 1:
        error.message = problems[0]["message"]
    return {"problems": problems}


def _formatted(problem: Problem, prefix: list[str]) -> dict[str, Any]:
    """Return a problem with the names of the API: `compose_file` becomes `composeFile`."""
    message = problem.message
    for part in problem.path:
        if isinstance(part, str):
            message = message.replace(part, _camel(part))
    path = [*prefix, *(_camel(part) if isinstance(part, str) else part for part in problem.path)]
    return {"path": path, "code": problem.code, "message": message}


def _camel(name: str) -> str:
    head, *tail = name.split("_")
    return head + "".join(part.capitalize() for part in tail)
