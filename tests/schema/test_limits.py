"""How much an operation may ask for."""

import time
from dataclasses import dataclass
from typing import Any

import pytest
from graphql import OperationDefinitionNode, get_introspection_query, parse

import schema
from schema.limits import Limits, NestedTooDeeply, Size, measure


@dataclass
class Anybody:
    """The context of operations that need none."""

    def release(self) -> None:
        """Nothing was loaded."""


CORE = schema.make()._schema


def size(document: str, variables: dict[str, object] | None = None) -> Size:
    parsed = parse(document)
    [operation] = [node for node in parsed.definitions if isinstance(node, OperationDefinitionNode)]
    return measure(CORE, parsed, operation, variables or {})


def bomb(levels: int) -> str:
    fragments = "".join(f"fragment F{level} on Query {{ ...F{level + 1} ...F{level + 1} }}" for level in range(levels))
    return f"{{ ...F0 }} {fragments} fragment F{levels} on Query {{ __typename }}"


async def errors(document: str, operation_name: Any = None, **limits: Any) -> list[dict[str, Any]]:
    """The extensions of what is wrong with a document that needs no database."""
    result = await schema.make(limits=Limits(**limits)).execute(
        document, operation_name=operation_name, context_value=Anybody()
    )
    return [error.extensions or {} for error in result.errors or []]


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ("{ __typename }", Size(depth=1, aliases=0, fields=1, cost=1)),
        ("{ a: __typename b: __typename }", Size(depth=1, aliases=2, fields=2, cost=2)),
        ('{ host(id: "x") { id name } }', Size(depth=2, aliases=0, fields=3, cost=3)),
        ('{ node(id: "x") { ... on Host { id ... { name } } } }', Size(depth=2, aliases=0, fields=3, cost=3)),
        ("{ hosts { nodes { id } } }", Size(depth=3, aliases=0, fields=3, cost=1 + 20 * 2)),
        ("{ hosts(first: 5) { nodes { id } } }", Size(depth=3, aliases=0, fields=3, cost=1 + 5 * 2)),
        ("{ hosts(last: 5) { nodes { id } } }", Size(depth=3, aliases=0, fields=3, cost=1 + 5 * 2)),
        ("{ hosts(first: null, last: 5) { nodes { id } } }", Size(depth=3, aliases=0, fields=3, cost=1 + 5 * 2)),
        ("{ hosts(first: 5000) { nodes { id } } }", Size(depth=3, aliases=0, fields=3, cost=1 + 100 * 2)),
        ("{ hosts(first: -1) { nodes { id } } }", Size(depth=3, aliases=0, fields=3, cost=1)),
        ("{ ...A ...A } fragment A on Query { a: __typename }", Size(depth=1, aliases=2, fields=2, cost=2)),
        ("{ ...A } fragment A on Query { ...A __typename }", Size(depth=1, aliases=0, fields=1, cost=1)),
        ("{ ...Missing nope { nope } }", Size(depth=2, aliases=0, fields=2, cost=2)),
    ],
)  # fmt: skip
def test_an_operation_is_measured_after_fragments_are_expanded(document: str, expected: Size) -> None:
    assert size(document) == expected


@pytest.mark.parametrize(
    ("declared", "variables", "length"),
    [
        ("$n: Int", {"n": 7}, 7),
        ("$n: Int", {}, 20),
        ("$n: Int = 9", {}, 9),
        ("$n: Int = 9", {"n": 3}, 3),
        ("$n: Int", {"n": "x"}, 20),
        ("$n: Int", {"n": 10**30}, 100),
    ],
)
def test_the_size_of_a_page_may_be_a_variable(declared: str, variables: dict[str, object], length: int) -> None:
    document = f"query ({declared}) {{ hosts(first: $n) {{ nodes {{ id }} }} }}"
    assert size(document, variables).cost == 1 + length * 2


NODES = "{ id ... on Host { name } }"


@pytest.mark.parametrize(
    ("document", "variables", "length"),
    [
        (f'{{ nodes(ids: ["a", "b", "c"]) {NODES} }}', {}, 3),
        (f'{{ nodes(ids: "a") {NODES} }}', {}, 1),
        (f"{{ nodes(ids: []) {NODES} }}", {}, 0),
        (f"query ($ids: [ID!]!) {{ nodes(ids: $ids) {NODES} }}", {"ids": ["a"] * 50}, 50),
        (f"query ($ids: [ID!]!) {{ nodes(ids: $ids) {NODES} }}", {"ids": ["a"] * 5000}, 100),
        (f'query ($ids: [ID!]! = ["a", "b"]) {{ nodes(ids: $ids) {NODES} }}', {}, 2),
        (f"query ($ids: [ID!]!) {{ nodes(ids: $ids) {NODES} }}", {"ids": "a"}, 1),
        (f"query ($ids: [ID!]!) {{ nodes(ids: $ids) {NODES} }}", {}, 1),
    ],
)
def test_ids_multiply_like_a_page(document: str, variables: dict[str, object], length: int) -> None:
    assert size(document, variables).cost == 1 + length * 2


def test_pages_in_pages_multiply() -> None:
    document = "{ deployments(first: 50) { nodes { runs(first: 10) { nodes { id } } } } }"
    assert size(document).cost == 1 + 50 * (1 + (1 + 10 * 2))


def test_a_fragment_is_measured_once() -> None:
    start = time.perf_counter()
    assert size(bomb(40)).fields == 2**40
    assert time.perf_counter() - start < 1


def test_fragments_in_fragments_without_end_are_refused() -> None:
    with pytest.raises(NestedTooDeeply):
        size(bomb(300))


@pytest.mark.parametrize(
    ("document", "limit", "most"),
    [
        ("{ host(id: 1) { id } }", "depth", 1),
        ("{ a: __typename b: __typename }", "aliases", 1),
        ("{ __typename __typename }", "fields", 1),
        ("{ hosts { nodes { id } } }", "cost", 40),
        ("{ __typename __typename }", "tokens", 3),
        ("{ __typename }" + " " * 100, "characters", 50),
    ],
)
async def test_an_operation_above_a_limit_is_refused(document: str, limit: str, most: int) -> None:
    expected = {"code": "OPERATION_TOO_COMPLEX", "status": 400, "limit": limit, "max": most}
    assert await errors(document, **{limit: most}) == [expected]


async def test_a_run_of_comments_is_refused() -> None:
    [extensions] = await errors("#\n" * 3000 + "{ __typename }")
    assert extensions == {"code": "OPERATION_TOO_COMPLEX", "status": 400, "limit": "comments", "max": 2000}


@pytest.mark.parametrize("given", [[1] * 3, [[[[]]]], {"a": {"b": [1]}}])
async def test_variables_with_too_many_values_are_refused(given: object) -> None:
    refused = {"code": "OPERATION_TOO_COMPLEX", "status": 400, "limit": "values", "max": 4}
    for most, expected in ((4, [refused]), (5, [])):
        result = await schema.make(limits=Limits(values=most)).execute(
            "{ __typename }", variable_values={"x": given, "y": "text"}, context_value=Anybody()
        )
        assert [error.extensions for error in result.errors or []] == expected


async def test_an_operation_at_its_limits_is_carried_out() -> None:
    assert await errors("{ a: __typename }", depth=1, aliases=1, fields=1, cost=1, tokens=5) == []


async def test_limits_are_those_of_the_operation_that_is_asked_for() -> None:
    document = "query Small { __typename } query Large { a: __typename b: __typename }"
    assert await errors(document, "Small", aliases=1) == []
    [extensions] = await errors(document, "Large", aliases=1)
    assert extensions["limit"] == "aliases"


async def test_which_of_several_operations_is_not_guessed() -> None:
    expected = {"code": "OPERATION_RESOLUTION_FAILURE", "status": 400}
    assert await errors("query A { __typename } query B { __typename }") == [expected]


async def test_the_introspection_of_clients_passes() -> None:
    document = get_introspection_query(
        specified_by_url=True, directive_is_repeatable=True, schema_description=True, input_value_deprecation=True
    )
    assert await errors(document) == []


async def test_introspection_in_circles_is_refused() -> None:
    document = "{ __schema { types " + "{ fields { type " * 4 + "{ name }" + "} }" * 4 + " } }"
    [extensions] = await errors(document)
    assert extensions["code"] == "GRAPHQL_VALIDATION_FAILED"
