"""Lets the subscribers of one stream have their events made once: a thousand who follow a run ask mostly the same.

An event that is `Shareable` shows nothing but what it holds: nobody's own data, and nothing that is read for it.
"""

import json
from functools import cached_property
from typing import Any

from graphql import ExecutionResult
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext


class Shareable:
    """An event that several subscribers get; `made` is what was made of it for some, and others can use."""

    made: dict[object, Any]


class SharedData(dict[str, Any]):
    """The `data` of an event that several subscribers get; nobody changes it."""

    @cached_property
    def text(self) -> str:
        """It as JSON."""
        return json.dumps(self, separators=(",", ":"))


class Executor(StrawberryGraphQLCoreExecutionContext):
    """Strawberry's, which executes an operation once for an event that is `Shareable`."""

    def execute_operation(self, serially: bool | None = None) -> Any:
        if not isinstance(self.root_value, Shareable):
            return super().execute_operation(serially)
        # Documents that were asked for before are the same object, see `schema.documents`.
        key = id(self.operation), repr(sorted(self.variable_values.coerced.items()))
        found = self.root_value.made.get(key)
        if found is not None:
            return found[0]
        result: Any = super().execute_operation(serially)
        if isinstance(result, ExecutionResult) and result.data is not None and not result.errors:
            result = ExecutionResult(SharedData(result.data))
            self.root_value.made[key] = result, self.operation  # while this is kept, no other has its id
        return result
