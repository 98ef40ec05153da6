"""Every field of the roots, for every role, by every transport: allowed or FORBIDDEN, as declared."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from graphql import (
    GraphQLEnumType,
    GraphQLField,
    GraphQLInputObjectType,
    GraphQLInputType,
    GraphQLList,
    GraphQLNonNull,
    is_leaf_type,
)

import schema
from db.broadcast import Everything
from db.database import sqlite_url
from db.models import Role, now
from resolvers import tokens
from resolvers.deployment_changes import CHANGES
from tests import factories
from tests.support.api import needs
from tests.support.serving import Served, serving

OPERATIONS = {"Query": "query", "Mutation": "mutation", "Subscription": "subscription"}
EXECUTABLE = schema.make()
FIELDS = {
    f"{kind.name}.{name}": field
    for kind in (EXECUTABLE._schema.query_type, EXECUTABLE._schema.mutation_type, EXECUTABLE._schema.subscription_type)
    if kind is not None
    for name, field in kind.fields.items()
}
NO_OTHER_EVENT = {"Subscription.deploymentsChanged": f'after: "{CHANGES.cursor([0])}"'}


def literal(kind: GraphQLInputType) -> str:
    """Some value of an argument's type, which the rules may refuse."""
    if isinstance(kind, GraphQLNonNull):
        return literal(kind.of_type)
    if isinstance(kind, GraphQLList):
        return f"[{literal(kind.of_type)}]"
    if isinstance(kind, GraphQLEnumType):
        return str(next(iter(kind.values)))
    if isinstance(kind, GraphQLInputObjectType):
        needed = {name: field.type for name, field in kind.fields.items() if isinstance(field.type, GraphQLNonNull)}
        return "{" + ", ".join(f"{name}: {literal(type_)}" for name, type_ in needed.items()) + "}"
    return '"\\u0000"'


def document(name: str, field: GraphQLField) -> str:
    """An operation with the field."""
    kind, _, short = name.partition(".")
    given = [f"{arg}: {literal(of.type)}" for arg, of in field.args.items() if isinstance(of.type, GraphQLNonNull)]
    given += [NO_OTHER_EVENT[name]] if name in NO_OTHER_EVENT else []
    arguments = f"({', '.join(given)})" if given else ""
    below = "" if is_leaf_type(getattr(field.type, "of_type", field.type)) else "{ __typename }"
    return f"{OPERATIONS[kind]} {{ {short}{arguments} {below} }}"


@dataclass
class Asked:
    """A server, and tokens of each role."""

    served: Served
    tokens: dict[Role, str]

    async def over_http(self, role: Role, text: str) -> list[dict[str, Any]]:
        answer = await self.served.ask(text, self.tokens[role])
        return list(answer.json().get("errors", []))

    async def over_events(self, role: Role, text: str) -> list[dict[str, Any]]:
        async with self.served.client(self.tokens[role]) as client:
            headers = {"accept": "text/event-stream"}
            async with client.stream("POST", self.served.url, json={"query": text}, headers=headers) as answer:
                assert answer.status_code == 200
                async for line in answer.aiter_lines():
                    if line.startswith("data: {"):
                        return list(json.loads(line.removeprefix("data: ")).get("errors", []))
        raise AssertionError(f"no event for {text}")

    async def over_websocket(self, role: Role, text: str) -> list[dict[str, Any]]:
        async with self.served.websocket(self.tokens[role]) as socket:
            await socket.subscribe("1", text)
            message = await socket.receive()
            payload = message["payload"]
            return list(payload if message["type"] == "error" else payload.get("errors", []))


@pytest.fixture(scope="module")
async def asked(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Asked]:
    directory = tmp_path_factory.mktemp("roles")
    path = Path(shutil.copy(sqlite_template, directory / "daos.db"))
    async with factories.database(sqlite_url(path)) as db:
        await factories.deployment(db)  # something to tell of
        made = {role: (await tokens.create(db, f"a {role.value}", role))[1].reveal() for role in Role}
        async with serving(db, directory) as served:
            yield Asked(served, made)


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("transport", ["over_http", "over_websocket", "over_events"])
async def test_a_role_may_do_what_is_declared_and_nothing_else(asked: Asked, transport: str, role: Role) -> None:
    wrong = []
    for name, field in FIELDS.items():
        if transport == "over_http" and name.startswith("Subscription."):
            continue  # plain HTTP has none of these
        codes = {error["extensions"]["code"] for error in await getattr(asked, transport)(role, document(name, field))}
        if ("FORBIDDEN" in codes) == (role.rank >= needs(field).role.rank) or "GRAPHQL_VALIDATION_FAILED" in codes:
            wrong.append((name, sorted(codes)))
    assert wrong == []


async def test_a_token_is_useless_from_its_end_on(asked: Asked) -> None:
    _, token = await tokens.create(asked.served.db, "short", Role.VIEWER, expires_at=now() + timedelta(seconds=1))
    async with asked.served.websocket(token.reveal()) as socket:
        await socket.subscribe("1", "{ viewer { name } }")
        assert (await socket.receive())["payload"]["data"] == {"viewer": {"name": "short"}}
        assert (await socket.receive())["type"] == "complete"
        await asyncio.sleep(2.1)  # the end, and the second for which it counts as seen
        await socket.subscribe("2", "{ viewer { name } }")
        assert (await socket.receive())["payload"]["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"
    assert (await asked.served.ask("{ viewer { name } }", token.reveal())).status_code == 401


async def test_an_event_after_a_revocation_is_not_told(asked: Asked) -> None:
    db = asked.served.db
    _, token = await tokens.create(db, "leaver", Role.VIEWER)
    async with asked.served.websocket(token.reveal()) as socket:
        await socket.subscribe("1", "subscription { deploymentsChanged { status } }")
        await socket.subscribe("2", "{ viewer { name } }")
        assert (await socket.receive())["id"] == "2"
        assert (await socket.receive())["type"] == "complete"
        await tokens.revoke(db, "leaver")
        await asyncio.sleep(1.1)  # for which it counts as seen
        await factories.deployment(db)
        asked.served.broadcast.notify(Everything.DEPLOYMENTS)
        message = await socket.receive()
    assert message["payload"]["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED", message
