"""The role that each root field requires, and its check.

A field declares the required role; here it is compared with the principal's role.  Which hosts the principal has
access to is enforced in the database: `Context.identify` limits it.  The events of a subscription are mostly read once
for all its subscribers: each event is checked here before it is executed.
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any
from uuid import UUID

import strawberry
from strawberry.extensions import FieldExtension
from strawberry.extensions.field_extension import AsyncExtensionResolver
from strawberry.types import Info as AnyInfo
from strawberry.utils.await_maybe import await_maybe

from db.models import Role
from resolvers.errors import Forbidden, NotFound
from resolvers.visibility import Seen, is_visible
from schema.context import Context
from schema.errors import code_of


class Needs(FieldExtension):
    """Resolves a field only for principals with the role or a higher one."""

    def __init__(self, role: Role) -> None:
        self.role = role

    async def resolve_async(
        self, next_: AsyncExtensionResolver, source: Any, info: AnyInfo[Context, None], **arguments: Any
    ) -> Any:
        context = info.context
        if context.recheck is not None:
            await context.recheck()
        if not context.asker.may(self.role):
            raise Forbidden(
                field=info.field_name, needed=self.role.value, name=context.asker.name, role=context.asker.role.value
            )
        return await await_maybe(next_(source, info, **arguments))


class Recorded(Needs):
    """The same for a mutation, which is recorded in the audit log whatever its outcome: see `resolvers.audit`."""

    async def resolve_async(
        self, next_: AsyncExtensionResolver, source: Any, info: AnyInfo[Context, None], **arguments: Any
    ) -> Any:
        context = info.context
        with context.doing(info.field_name, list(_ids(arguments.get("input")))) as deed:
            try:
                return await super().resolve_async(next_, source, info, **arguments)
            except Exception as error:
                await deed.failed(context.everything, code_of(error))
                raise


class Event(ABC):
    """An event of a subscription."""

    @property
    @abstractmethod
    def subject(self) -> tuple[Seen, UUID]:
        """The row that the event is about: a principal without access to it does not receive the event."""


class Followed(Needs):
    """The same for a subscription and each of its events; while it is open, its cost counts for its token.

    `of_one`: it is about one row, and ends when the principal loses access to it; otherwise such events are skipped.
    """

    def __init__(self, role: Role, *, of_one: bool) -> None:
        super().__init__(role)
        self.of_one = of_one

    async def resolve_async(
        self, next_: AsyncExtensionResolver, source: Any, info: AnyInfo[Context, None], **arguments: Any
    ) -> AsyncGenerator[Event]:
        events = await super().resolve_async(next_, source, info, **arguments)
        context = info.context
        if context.reserve is not None:
            context.ending.enter_context(context.reserve(context.cost))
        return self._allowed(context, events)

    async def _allowed(self, context: Context, events: AsyncGenerator[Event]) -> AsyncGenerator[Event]:
        """Yield the events that the principal may receive.  Raises: Unauthenticated, NotFound."""
        async with aclosing(events):
            async for event in events:
                await context.begin_event()
                entity, key = event.subject
                if await is_visible(context.db, entity, key):
                    yield event
                elif self.of_one:
                    raise NotFound(kind=entity.__name__, id=key)


def _ids(given: object) -> "list[str]":
    """Return the ids in an input."""
    values: Mapping[str, object] = vars(given) if given is not None else {}
    found: list[str] = []
    for name, value in values.items():
        if name.endswith("_id") and isinstance(value, str):
            found.append(value)
        elif name.endswith("_ids") and isinstance(value, list):
            found.extend(map(str, value))
    return [text[:36] for text in found]  # the length of an id; longer text is not an id


def field(role: Role, description: str) -> Any:
    """Declare a query field that requires the role."""
    return strawberry.field(description=description, extensions=[Needs(role)])


def mutation(role: Role, description: str) -> Any:
    """Declare a mutation that requires the role."""
    return strawberry.mutation(description=description, extensions=[Recorded(role)])


def subscription(role: Role, description: str, *, of_one: bool) -> Any:
    """Declare a subscription that requires the role; its events are `Event`s, of one row or of many."""
    return strawberry.subscription(description=description, extensions=[Followed(role, of_one=of_one)])
