"""The printed schema is the executable one, and has all that the contract promises."""

from pathlib import Path
from typing import TypeVar

import pytest
from graphql import (
    GraphQLArgument,
    GraphQLEnumType,
    GraphQLField,
    GraphQLInputField,
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLObjectType,
    GraphQLScalarType,
    GraphQLSchema,
    Undefined,
    build_schema,
    find_breaking_changes,
    is_specified_scalar_type,
    validate_schema,
)

import schema

PRINTED = Path(schema.__file__).with_name("schema.graphql")
CONTRACT = Path(__file__).with_name("contract.graphql")

Element = TypeVar("Element", GraphQLField, GraphQLArgument, GraphQLInputField)


@pytest.fixture(scope="module")
def ours() -> GraphQLSchema:
    return build_schema(PRINTED.read_text())


@pytest.fixture(scope="module")
def contract() -> GraphQLSchema:
    return build_schema(CONTRACT.read_text())


def test_the_printed_schema_is_the_executable_one(executable_schema: schema.Schema) -> None:
    printed = executable_schema.as_str() + "\n"
    assert PRINTED.read_text() == printed, "daos schema > schema/schema.graphql"


def test_the_printed_schema_is_valid(ours: GraphQLSchema) -> None:
    assert validate_schema(ours) == []


def test_no_client_of_the_contract_breaks(ours: GraphQLSchema, contract: GraphQLSchema) -> None:
    assert [change.description for change in find_breaking_changes(contract, ours)] == []


def test_everything_of_the_contract_is_there_as_it_says(ours: GraphQLSchema, contract: GraphQLSchema) -> None:
    # Stricter than the test above: what got non-null or optional is another type too.
    differences: list[str] = []
    for name, promised in contract.type_map.items():
        if name.startswith("__") or is_specified_scalar_type(promised):
            continue
        there = ours.type_map.get(name)
        if type(there) is not type(promised):
            differences.append(f"{name}: {type(there).__name__}")
        elif isinstance(promised, GraphQLEnumType) and isinstance(there, GraphQLEnumType):
            differences += [f"{name}.{value}" for value in promised.values if value not in there.values]
        elif isinstance(promised, GraphQLInputObjectType) and isinstance(there, GraphQLInputObjectType):
            differences += _different(name, promised.fields, there.fields)
            differences += _demanded(name, promised.fields, there.fields)
        elif isinstance(promised, GraphQLScalarType) and isinstance(there, GraphQLScalarType):
            differences += [name] if promised.specified_by_url != there.specified_by_url else []
        elif isinstance(promised, GraphQLObjectType | GraphQLInterfaceType):
            assert isinstance(there, GraphQLObjectType | GraphQLInterfaceType)
            differences += [
                f"{name}: {i}" for i in promised.interfaces if i.name not in {j.name for j in there.interfaces}
            ]
            differences += _different(name, promised.fields, there.fields)
            for field, value in promised.fields.items():
                differences += _different(f"{name}.{field}", value.args, there.fields[field].args)
                differences += _demanded(f"{name}.{field}", value.args, there.fields[field].args)
    assert differences == []


def _different(where: str, promised: dict[str, Element], there: dict[str, Element]) -> list[str]:
    """What is promised of fields or arguments and is not there, or with another type or default."""
    return [
        f"{where}.{name}: {element.type}"
        for name, element in promised.items()
        if name not in there or str(there[name].type) != str(element.type) or _default(there[name]) != _default(element)
    ]


def _demanded(where: str, promised: dict[str, Element], there: dict[str, Element]) -> list[str]:
    """What is not promised, and yet has to be given."""
    return [
        f"{where}.{name} is required"
        for name, element in there.items()
        if name not in promised and str(element.type).endswith("!") and _default(element) is Undefined
    ]


def _default(element: object) -> object:
    return getattr(element, "default_value", Undefined)


def test_a_deployment_has_one_of_four_statuses(ours: GraphQLSchema) -> None:
    statuses = ours.type_map["DeploymentStatus"]
    assert isinstance(statuses, GraphQLEnumType)
    assert set(statuses.values) == {"PENDING", "RUNNING", "SUCCESS", "FAILED"}


def test_every_list_that_grows_is_paged(ours: GraphQLSchema) -> None:
    for connection in (type_ for name, type_ in ours.type_map.items() if name.endswith("Connection")):
        if isinstance(connection, GraphQLObjectType):
            assert list(connection.fields) == ["edges", "nodes", "pageInfo", "totalCount"]
    paged = [
        field
        for type_ in ours.type_map.values()
        if isinstance(type_, GraphQLObjectType)
        for field in type_.fields.values()
        if str(field.type).endswith("Connection!")
    ]
    assert len(paged) == 12
    assert all({"first", "after", "last", "before"} <= set(field.args) for field in paged)


def test_every_mutation_takes_one_input_and_may_be_null(ours: GraphQLSchema) -> None:
    assert ours.mutation_type is not None
    for name, field in ours.mutation_type.fields.items():
        assert list(field.args) == ["input"]
        assert str(field.args["input"].type) == f"{name[0].upper()}{name[1:]}Input!"
        assert str(field.type) == f"{name[0].upper()}{name[1:]}Payload"
