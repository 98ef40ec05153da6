"""A client of the schema itself, and what the schema declares."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID

from graphql import GraphQLField
from strawberry.types import ExecutionResult

from db.database import Database
from db.models import Base
from resolvers.tokens import Principal
from schema import Schema
from schema.context import Context
from schema.permission import Needs

Row = TypeVar("Row", bound=Base)

AUDIT_LOG = "{ auditLog { nodes { principal tokenId address mutation objectIds outcome } totalCount } }"
TIMEOUT = 5.0  # seconds; sooner than the look of a subscription that needs no news

Events = AsyncGenerator[dict[str, Any], None]


@dataclass
class Api:
    """Executes documents; all operations share `context`, as those of one websocket do."""

    schema: Schema
    context: Context

    @property
    def db(self) -> Database:
        return self.context.db

    async def db_get(self, entity: type[Row], key: UUID) -> Row:
        """A row as it is stored now."""
        async with self.db.read() as session:
            return await session.get_one(entity, key)

    async def execute(self, document: str, **variables: Any) -> ExecutionResult:
        """What the document leads to, errors included."""
        result = await self.schema.execute(document, variable_values=variables, context_value=self.context)
        assert isinstance(result, ExecutionResult)
        return result

    async def ask(self, document: str, **variables: Any) -> dict[str, Any]:
        """The data of a document that leads to no error."""
        return _clean(await self.execute(document, **variables))

    async def error(self, document: str, **variables: Any) -> dict[str, Any]:
        """The one error of a document whose one field is then null."""
        result = await self.execute(document, **variables)
        assert result.data is not None
        assert list(result.data.values()) == [None]
        assert result.errors is not None
        [error] = result.errors
        return dict(error.formatted)

    @asynccontextmanager
    async def subscribe(self, document: str, **variables: Any) -> AsyncGenerator[Events, None]:
        """The data of each event of a subscription without errors, which is unsubscribed at the end of the block."""
        results = await self.schema.subscribe(document, variable_values=variables, context_value=self.context)

        async def events() -> Events:
            async for result in results:
                assert isinstance(result, ExecutionResult)
                yield _clean(result)

        try:
            yield events()
        finally:
            await results.aclose()

    async def subscription_error(self, document: str, **variables: Any) -> dict[str, Any]:
        """The one error of a subscription that has no event."""
        results = await self.schema.subscribe(document, variable_values=variables, context_value=self.context)
        [result] = [result async for result in results]
        assert isinstance(result, ExecutionResult)
        assert result.errors is not None
        [error] = result.errors
        return dict(error.formatted)


def _clean(result: ExecutionResult) -> dict[str, Any]:
    assert result.errors is None, result.errors
    assert result.data is not None
    return result.data


async def take(events: Events, count: int = 1) -> list[dict[str, Any]]:
    """The next `count` events' one field."""
    async with asyncio.timeout(TIMEOUT):
        return [next(iter((await anext(events)).values())) for _ in range(count)]


async def rest(events: Events) -> list[dict[str, Any]]:
    """The one field of all events until the end."""
    async with asyncio.timeout(TIMEOUT):
        return [next(iter(event.values())) async for event in events]


def needs(field: GraphQLField) -> Needs:
    """The one declaration of the field; without it the test that asks fails."""
    definition: Any = field.extensions["strawberry-definition"]
    [declared] = [each for each in definition.extensions if isinstance(each, Needs)]
    return declared


async def audit_entries(api: Api) -> list[dict[str, Any]]:
    """The audit, newest first, as an admin sees it."""
    api.context.identify(Principal("auditor"))
    nodes: list[dict[str, Any]] = (await api.ask(AUDIT_LOG))["auditLog"]["nodes"]
    return nodes
