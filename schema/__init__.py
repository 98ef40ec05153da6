"""The GraphQL schema that clients see.  `make()` builds it; each root field calls one resolver."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import strawberry
from graphql import GraphQLError
from strawberry.extensions import SchemaExtension
from strawberry.schema.config import StrawberryConfig
from strawberry.types import ExecutionContext

from schema.answer import Encoder
from schema.context import PerOperation
from schema.documents import KnownDocuments, Remembered
from schema.enums import ErrorCode
from schema.errors import Errors, describe
from schema.executor import executor_of
from schema.limits import Limited, Limits
from schema.log import OperationLog
from schema.mutation import Mutation
from schema.pace import Pace
from schema.query import Query
from schema.scalars import DATE_TIME
from schema.subscription import Subscription


class Schema(strawberry.Schema):
    """Strawberry's schema with our error format; its responses respect `limits`, and `encoder` encodes them."""

    def __init__(self, *types: Any, limits: Limits | None = None, pace: Pace | None = None, **options: Any) -> None:
        kept, pace = limits or Limits(), pace or Pace()
        options["execution_context_class"] = executor_of(kept, pace)
        super().__init__(*types, **options)
        self.limits = kept
        self.encoder = Encoder(pace, kept.answer)

    def process_errors(self, errors: list[GraphQLError], execution_context: ExecutionContext | None = None) -> None:
        """Describe the errors of an operation, of each event of a subscription, and of a failed extension.

        Strawberry's own method logs every error at level ERROR with the document, even a client's typo (0.341.2).
        """
        describe(errors, execution_context)


def make(
    extensions: Sequence[type[SchemaExtension]] = (), limits: Limits | None = None, pace: Pace | None = None
) -> Schema:
    """Return the schema, with further `extensions` besides its own; `limits` and `pace` default to the usual ones."""
    of_operations, pace = limits or Limits(), pace or Pace()
    known = KnownDocuments()
    return Schema(
        query=Query,
        mutation=Mutation,
        subscription=Subscription,
        types=[ErrorCode],
        limits=of_operations,
        pace=pace,
        extensions=[
            lambda: PerOperation(pace),
            OperationLog,
            Errors,
            *extensions,
            # Last: when a hook raises, Strawberry never exits the hooks that it has entered (0.341.2), and the time
            # limit would cancel whatever its task does later.
            lambda: Limited(of_operations),
            lambda: Remembered(known),
        ],
        config=StrawberryConfig(scalar_map={datetime: DATE_TIME}, disable_field_suggestions=True),
    )
