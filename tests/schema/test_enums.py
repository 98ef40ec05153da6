"""The enums of the API are the domain's, value by value, each with a description."""

from enum import StrEnum

import pytest
from graphql import GraphQLEnumType

import schema
from resolvers.deployments import OrderField
from schema import enums

KINDS = [getattr(enums, name) for name in enums.__all__]
NAMES: dict[type[StrEnum], str] = {OrderField: "DeploymentOrderField"}


@pytest.fixture(scope="module")
def of_the_api(executable_schema: schema.Schema) -> dict[str, GraphQLEnumType]:
    types = executable_schema._schema.type_map.items()
    return {name: kind for name, kind in types if isinstance(kind, GraphQLEnumType) and not name.startswith("__")}


def test_the_api_has_these_enums_and_no_others(of_the_api: dict[str, GraphQLEnumType]) -> None:
    assert of_the_api.keys() == {NAMES.get(kind, kind.__name__) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_value_has_the_name_of_the_domain_and_a_description(
    of_the_api: dict[str, GraphQLEnumType], kind: type[StrEnum]
) -> None:
    described = of_the_api[NAMES.get(kind, kind.__name__)]
    assert list(described.values) == [member.name for member in kind]
    descriptions = [value.description or "" for value in described.values.values()]
    assert [text for text in descriptions if not text.endswith(".")] == []
    assert len(set(descriptions)) == len(descriptions)
    assert described.description


def test_a_value_without_a_description_is_noticed_at_the_start() -> None:
    class Half(StrEnum):
        ONE = "ONE"
        TWO = "TWO"

    with pytest.raises(KeyError):
        enums._describe(Half, "Two values.", {Half.ONE: "One."})
