"""What clients see.  `make()` gives the executable schema; the roots are one call of a resolver each."""

from collections.abc import Sequence
from datetime import datetime

import strawberry
from graphql import GraphQLError
from strawberry.extensions import SchemaExtension
from strawberry.schema.config import StrawberryConfig
from strawberry.types import ExecutionContext

from schema.context import PerOperation
from schema.enums import ErrorCode
from schema.errors import Errors
from schema.mutation import Mutation
from schema.query import Query
from schema.scalars import DATE_TIME
from schema.subscription import Subscription


class Schema(strawberry.Schema):
    """Strawberry's schema, which logs nothing by itself.

    Its own `process_errors` logs every error, a client's typing mistake too, with the document; `schema.errors` logs
    what is worth it.
    """

    def process_errors(self, errors: list[GraphQLError], execution_context: ExecutionContext | None = None) -> None:
        """Nothing: see the class."""


def make(extensions: Sequence[type[SchemaExtension]] = ()) -> Schema:
    """The schema, with further `extensions` behind its own."""
    return Schema(
        query=Query,
        mutation=Mutation,
        subscription=Subscription,
        types=[ErrorCode],
        extensions=[PerOperation, Errors, *extensions],
        config=StrawberryConfig(scalar_map={datetime: DATE_TIME}, disable_field_suggestions=True),
    )
