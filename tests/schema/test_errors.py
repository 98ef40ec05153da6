"""What becomes of errors."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
import strawberry
from strawberry.extensions import SchemaExtension

import schema
from resolvers.errors import ErrorCode, HostNotFound, InvalidInput, NotFound, Problem
from schema.errors import Errors
from schema.limits import Limited, Limits

SECRET = "postgresql://daos:hunter2@db.example/daos"  # what an exception's text may have in it


@strawberry.input
class CreateInput:
    name: str


@strawberry.type
class Query:
    @strawberry.field
    def fails(self, how: str) -> str | None:
        raise {
            "unexpected": RuntimeError(SECRET),
            "not_found": NotFound(kind="Run", id="7"),
            "invalid": InvalidInput([Problem(("page_size",), "RANGE", "page_size must be small.")]),
        }[how]

    @strawberry.field
    async def waits(self) -> str | None:
        await asyncio.Event().wait()
        return None

    @strawberry.field
    def count(self, first: int = 0) -> int:
        return first


@strawberry.type
class Mutation:
    @strawberry.mutation
    def create(self, input: CreateInput) -> str | None:  # noqa: A002 - the API's name
        raise InvalidInput(
            [Problem(("host_name",), "TOO_LONG", "host_name is too long."), Problem(("files", 3, "path"), "PATH", "…")]
        )


@strawberry.type
class Subscription:
    @strawberry.subscription
    async def fails(self, how: str, after: int = 0) -> AsyncIterator[int]:
        for number in range(after):
            yield number
        raise {"unexpected": RuntimeError(SECRET), "host": HostNotFound(id="9")}[how]


class Breaks(SchemaExtension):
    """An extension with a bug."""

    def on_execute(self) -> Any:
        raise RuntimeError(SECRET)


def make(*extensions: type[SchemaExtension]) -> schema.Schema:
    limits = Limits(seconds=0.05)
    return schema.Schema(Query, Mutation, Subscription, extensions=[Errors, *extensions, lambda: Limited(limits)])


async def ask(query: str, variables: dict[str, Any] | None = None, *extensions: type[SchemaExtension]) -> Any:
    """The one error of a query or mutation."""
    result = await make(*extensions).execute(query, variable_values=variables)
    [error] = result.errors or []
    return error


async def follow(query: str) -> list[Any]:
    """The events of a subscription."""
    return [event async for event in await make().stream(query)]


async def test_an_expected_error_carries_its_code_and_status() -> None:
    error = await ask('{ fails(how: "not_found") }')
    assert (error.message, error.path) == (
        "Run '7' was not found; the field runs of its deployment lists the ids.",
        ["fails"],
    )
    assert error.extensions == {"code": "NOT_FOUND", "status": 404}


async def test_problems_are_told_in_the_names_of_the_api() -> None:
    error = await ask('mutation { create(input: {name: "x"}) }')
    assert error.extensions == {
        "code": "BAD_USER_INPUT",
        "status": 400,
        "problems": [
            {"path": ["input", "hostName"], "code": "TOO_LONG", "message": "hostName is too long."},
            {"path": ["input", "files", 3, "path"], "code": "PATH", "message": "…"},
        ],
    }


async def test_one_problem_is_the_message() -> None:
    error = await ask('{ fails(how: "invalid") }')
    assert error.message == "pageSize must be small."
    assert error.extensions["problems"][0]["path"] == ["pageSize"]


async def test_an_unexpected_error_is_masked_and_logged_with_its_id(caplog: pytest.LogCaptureFixture) -> None:
    error = await ask('{ fails(how: "unexpected") }')
    assert error.message == "Internal server error."
    assert error.extensions == {"code": "INTERNAL_SERVER_ERROR", "status": 500, "errorId": error.extensions["errorId"]}
    [record] = caplog.records
    assert (record.levelno, record.getMessage()) == (logging.ERROR, "unexpected error at fails")
    assert record.fields == {"error_id": error.extensions["errorId"]}  # type: ignore[attr-defined] # by `extra`
    assert SECRET in caplog.text


async def test_an_extension_that_fails_is_masked_too() -> None:
    error = await ask("{ count }", None, Breaks)
    assert (error.message, error.extensions["code"]) == ("Internal server error.", "INTERNAL_SERVER_ERROR")


async def test_a_query_that_takes_too_long_is_ended() -> None:
    error = await ask("{ waits }")
    assert error.message == "The operation exceeded its time limit."
    assert error.extensions == {"code": "TIMEOUT", "status": 504}


@pytest.mark.parametrize(
    ("query", "variables", "code"),
    [
        ("{", None, "GRAPHQL_PARSE_FAILED"),
        ("{ nope }", None, "GRAPHQL_VALIDATION_FAILED"),
        ('{ count(first: "x") }', None, "GRAPHQL_VALIDATION_FAILED"),
        ("query ($n: Int!) { count(first: $n) }", {"n": "x"}, "BAD_USER_INPUT"),
        ("query ($n: Int!) { count(first: $n) }", None, "BAD_USER_INPUT"),
        ("mutation ($i: CreateInput!) { create(input: $i) }", {"i": {"nope": 1, "name": "x"}}, "BAD_USER_INPUT"),
    ],
)
async def test_a_request_error_says_what_kind_it_is(
    query: str, variables: dict[str, Any] | None, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    error = await ask(query, variables)
    assert error.extensions == {"code": code, "status": 400}
    assert caplog.records == []


@pytest.mark.parametrize(
    ("query", "variables"),
    [
        ("mutation ($i: CreateInput!) { create(input: $i) }", {"i": {"name": [SECRET]}}),
        ("mutation ($i: CreateInput!) { create(input: $i) }", {"i": {"nam": SECRET}}),
        ("mutation ($i: CreateInput!) { create(input: $i) }", {"i": {"name": "x", "nam": [SECRET]}}),
        ("mutation ($i: CreateInput!) { create(input: $i) }", {"i": SECRET}),
        ("mutation ($i: CreateInput!) { create(input: $i) }", {"i": {"name": {"value": SECRET}}}),
        ("query ($n: Int!) { count(first: $n) }", {"n": SECRET}),
        ("query ($n: String!) { fails(how: $n) }", {"n": [SECRET]}),
        (f'mutation {{ create(input: {{name: ["{SECRET}"]}}) }}', None),
        (f'mutation {{ create(input: {{nam: "{SECRET}"}}) }}', None),
        (f'mutation {{ create(input: "{SECRET}") }}', None),
        (f'{{ count(first: "{SECRET}") }}', None),
        (f'query ($n: Int = "{SECRET}") {{ count(first: $n) }}', None),
    ],
)
async def test_what_was_given_is_not_repeated(query: str, variables: dict[str, Any] | None) -> None:
    result = await make().execute(query, variable_values=variables)
    assert result.errors
    for error in result.errors:
        assert "hunter2" not in str(error.formatted)
        assert error.message.endswith(".")


@pytest.mark.parametrize(
    "query",
    [
        "{ coun }",
        "{ count(frst: 1) }",
        "query ($n: Itn) { count }",
        "{ count @inclde(if: true) }",
        "{ ...Fragmnt } fragment Fragment on Query { count }",
        "mutation { create(input: {nam: 1}) }",
    ],
)
async def test_nothing_is_suggested(query: str) -> None:
    result = await make().execute(query)
    assert result.errors
    assert not [error.message for error in result.errors if "Did you mean" in error.message]


async def test_a_subscription_that_fails_before_its_first_event_is_described() -> None:
    [event] = await follow('subscription { fails(how: "host") }')
    [error] = event.errors
    assert error.message == "Host '9' was not found; the query hosts lists the ids."
    assert error.extensions == {"code": "HOST_NOT_FOUND", "status": 400}


async def test_a_subscription_that_fails_between_events_is_masked() -> None:
    *events, last = await follow('subscription { fails(how: "unexpected", after: 2) }')
    assert [event.data for event in events] == [{"fails": 0}, {"fails": 1}]
    [error] = last.errors
    assert (error.message, error.extensions["code"]) == ("Internal server error.", "INTERNAL_SERVER_ERROR")


async def test_a_subscription_that_is_none_is_described() -> None:
    for query, code in (
        ("subscription {", "GRAPHQL_PARSE_FAILED"),
        ("subscription { x }", "GRAPHQL_VALIDATION_FAILED"),
    ):
        [event] = await follow(query)
        assert event.errors[0].extensions["code"] == code


def test_the_codes_of_operations_are_in_the_schema() -> None:
    kind = schema.make()._schema.type_map["ErrorCode"]
    assert set(kind.values) == {code.value for code in ErrorCode}  # type: ignore[attr-defined] # it is an enum
