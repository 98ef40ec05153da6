"""One extension for all errors: gives each its code, masks what was not expected and logs it."""

import logging
import re
import secrets
from collections.abc import AsyncIterator
from typing import Any

from graphql import GraphQLError, GraphQLSyntaxError
from strawberry.extensions import SchemaExtension
from strawberry.schema.exceptions import CannotGetOperationTypeError, InvalidOperationTypeError
from strawberry.types.execution import PreExecutionError
from strawberry.types.graphql import OperationType

from resolvers.errors import DaosError, ErrorCode, InvalidInput, Problem

logger = logging.getLogger(__name__)

SUGGESTION = re.compile(r" Did you mean .*\?$", re.DOTALL)


class Errors(SchemaExtension):
    """Turns every error of an operation, also of each event of a subscription, into one with `code` and `status`."""

    async def on_operation(self) -> AsyncIterator[None]:
        yield
        self._classify(self.execution_context.result)

    async def on_stream_result(self, result: object) -> AsyncIterator[None]:
        self._classify(result)
        yield

    def _classify(self, result: object) -> None:
        # Strawberry's results and graphql-core's are different classes with the same two attributes.
        errors: list[GraphQLError] = getattr(result, "errors", None) or []
        for error in errors:
            if "code" not in (error.extensions or {}):
                self._describe(error, executed=not isinstance(result, PreExecutionError))

    def _describe(self, error: GraphQLError, *, executed: bool) -> None:
        cause = _cause(error)
        if isinstance(cause, DaosError):
            error.extensions = {"code": cause.code.value, "status": cause.status, **self._problems(cause, error)}
        elif cause is not None and error.path is not None:
            self._mask(error, cause)
        else:
            error.message = SUGGESTION.sub("", error.message)
            error.extensions = {"code": _request_code(error, cause, executed=executed), "status": 400}

    def _mask(self, error: GraphQLError, cause: BaseException) -> None:
        error_id = secrets.token_hex(8)
        path = ".".join(str(part) for part in error.path or [])
        logger.error("error %s at %s", error_id, path, exc_info=cause)
        error.message = "Internal server error."
        error.extensions = {"code": ErrorCode.INTERNAL_SERVER_ERROR.value, "status": 500, "errorId": error_id}

    def _problems(self, cause: DaosError, error: GraphQLError) -> dict[str, Any]:
        if not isinstance(cause, InvalidInput):
            return {}
        # A mutation's arguments stand in its one argument `input`; those of fields below it do not.
        top = error.path is not None and len(error.path) == 1
        prefix = ["input"] if top and self.execution_context.operation_type is OperationType.MUTATION else []
        problems = [_formatted(problem, prefix) for problem in cause.problems]
        if len(problems) == 1:
            error.message = problems[0]["message"]
        return {"problems": problems}


def _cause(error: GraphQLError) -> BaseException | None:
    """What was raised, below graphql-core's own wrappers; None where graphql-core itself found the error."""
    cause: BaseException | None = error.original_error
    while isinstance(cause, GraphQLError):
        cause = cause.original_error
    return cause


def _request_code(error: GraphQLError, cause: BaseException | None, *, executed: bool) -> str:
    """The code of an error that was found before anything was carried out."""
    if isinstance(error, GraphQLSyntaxError):
        return "GRAPHQL_PARSE_FAILED"
    if isinstance(cause, CannotGetOperationTypeError | InvalidOperationTypeError):
        return "OPERATION_RESOLUTION_FAILURE"
    return ErrorCode.BAD_USER_INPUT.value if executed else "GRAPHQL_VALIDATION_FAILED"


def _formatted(problem: Problem, prefix: list[str]) -> dict[str, Any]:
    """A problem in the API's names: `compose_file` is `composeFile` there."""
    message = problem.message
    for part in problem.path:
        if isinstance(part, str):
            message = message.replace(part, _camel(part))
    path = [*prefix, *(_camel(part) if isinstance(part, str) else part for part in problem.path)]
    return {"path": path, "code": problem.code, "message": message}


def _camel(name: str) -> str:
    head, *tail = name.split("_")
    return head + "".join(part.capitalize() for part in tail)
