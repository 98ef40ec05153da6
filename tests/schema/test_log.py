"""The line of an operation in the server's log: what it was, who asked, and how it ended."""

import logging
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from db.models import Role
from resolvers.tokens import Principal
from tests import factories
from tests.support.api import Api


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Any:
    """The fields of each line so far."""
    caplog.set_level(logging.INFO, "schema.log")
    return lambda: [vars(record)["fields"] for record in caplog.records if record.name == "schema.log"]


async def test_an_operation_is_one_line_with_its_name_kind_and_principal(api: Api, lines: Any) -> None:
    await api.ask("query Viewer { viewer { name } }")
    [line] = lines()
    assert line.pop("duration_ms") >= 0
    assert line == {"operation": "Viewer", "type": "query", "principal": "test", "token_id": None, "codes": []}


async def test_each_code_of_its_errors_is_told_once(api: Api, lines: Any) -> None:
    await api.execute('{ a: host(id: "x") { id } b: host(id: "y") { id } }')
    api.context.identify(Principal("viewer", Role.VIEWER))
    await api.execute('mutation { deleteHost(input: {hostId: "x"}) { __typename } }')
    assert [(line["type"], line["codes"]) for line in lines()] == [
        ("query", ["NOT_FOUND"]),
        ("mutation", ["FORBIDDEN"]),
    ]


@pytest.mark.parametrize("document", ["{", "{ nothing }"])
async def test_an_operation_that_is_none_is_told_by_its_code(api: Api, lines: Any, document: str) -> None:
    await api.execute(document)
    [line] = lines()
    assert line["codes"]
    assert line["operation"] is None


async def test_no_value_and_no_name_of_what_was_asked_is_in_the_line(api: Api, lines: Any) -> None:
    await api.execute("query($id: ID!) { host(id: $id) { id } }", id="hunter2")
    [line] = lines()
    assert "hunter2" not in str(line)
    assert line["operation"] is None


async def test_a_subscription_is_told_of_when_it_ends(api: Api, lines: Any) -> None:
    deployment = await factories.deployment(api.db)
    document = "subscription S($id: ID!) { deploymentStatus(id: $id) { status } }"
    async with api.subscribe(document, id=str(deployment.id)) as events:
        await anext(events)
        assert lines() == []
    [line] = lines()
    assert (line["operation"], line["type"]) == ("S", "subscription")


async def test_a_token_is_told_by_its_id(api: Api, lines: Any) -> None:
    token = uuid4()
    api.context.identify(replace(Principal("ci"), token_id=token))
    await api.ask("{ viewer { name } }")
    assert lines()[0]["token_id"] == token
