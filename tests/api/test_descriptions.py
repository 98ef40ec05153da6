"""What the schema promises to those who read it: a description of everything, and Relay's rules for connections."""

from collections.abc import Iterator

from graphql import (
    GraphQLArgument,
    GraphQLEnumType,
    GraphQLField,
    GraphQLInputObjectType,
    GraphQLInt,
    GraphQLInterfaceType,
    GraphQLList,
    GraphQLNamedType,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLScalarType,
    GraphQLString,
    is_introspection_type,
    is_specified_directive,
    is_specified_scalar_type,
)

import schema

CORE = schema.make()._schema
TYPES = [
    kind for kind in CORE.type_map.values() if not is_introspection_type(kind) and not is_specified_scalar_type(kind)
]
OBJECTS = [kind for kind in TYPES if isinstance(kind, GraphQLObjectType | GraphQLInterfaceType)]
CONNECTIONS = [kind for kind in OBJECTS if kind.name.endswith("Connection")]
EDGES = [kind for kind in OBJECTS if kind.name.endswith("Edge")]
PAGING = {"first": GraphQLInt, "after": GraphQLString, "last": GraphQLInt, "before": GraphQLString}


def described() -> Iterator[tuple[str, str | None]]:
    """Everything that can have a description, by its coordinate."""
    for kind in TYPES:
        yield kind.name, kind.description
        yield from _members(kind)
    for directive in CORE.directives:
        if not is_specified_directive(directive):
            yield f"@{directive.name}", directive.description


def _members(kind: GraphQLNamedType) -> Iterator[tuple[str, str | None]]:
    match kind:
        case GraphQLObjectType() | GraphQLInterfaceType():
            for name, field in kind.fields.items():
                yield f"{kind.name}.{name}", field.description
                for argument, definition in field.args.items():
                    yield f"{kind.name}.{name}({argument}:)", definition.description
        case GraphQLInputObjectType():
            for name, member in kind.fields.items():
                yield f"{kind.name}.{name}", member.description
        case GraphQLEnumType():
            for name, value in kind.values.items():
                yield f"{kind.name}.{name}", value.description


def fields() -> Iterator[tuple[str, GraphQLField]]:
    for kind in OBJECTS:
        for name, field in kind.fields.items():
            yield f"{kind.name}.{name}", field


def test_everything_has_a_description() -> None:
    # An input of a mutation is described by its type.
    missing = [name for name, description in described() if not description and not name.endswith("(input:)")]
    assert missing == []


def test_scalars_say_where_they_are_specified() -> None:
    own = [kind for kind in TYPES if isinstance(kind, GraphQLScalarType)]
    assert [kind.name for kind in own if kind.specified_by_url is None] == []


def test_a_connection_has_edges_and_page_info() -> None:
    assert CONNECTIONS
    for connection in CONNECTIONS:
        assert str(connection.fields["pageInfo"].type) == "PageInfo!", connection
        edge = f"{connection.name.removesuffix('Connection')}Edge"
        assert str(connection.fields["edges"].type) == f"[{edge}!]!", connection
        assert isinstance(CORE.type_map[edge], GraphQLObjectType)


def test_an_edge_has_a_node_and_a_cursor() -> None:
    assert {edge.name for edge in EDGES} == {
        f"{connection.name.removesuffix('Connection')}Edge" for connection in CONNECTIONS
    }
    for edge in EDGES:
        assert str(edge.fields["cursor"].type) == "String!", edge
        node = edge.fields["node"].type
        assert not isinstance(node.of_type if isinstance(node, GraphQLNonNull) else node, GraphQLList), edge


def test_page_info_is_relays() -> None:
    page_info = CORE.type_map["PageInfo"]
    assert isinstance(page_info, GraphQLObjectType)
    assert {name: str(field.type) for name, field in page_info.fields.items()} == {
        "hasNextPage": "Boolean!",
        "hasPreviousPage": "Boolean!",
        "startCursor": "String",
        "endCursor": "String",
    }


def test_a_field_of_a_connection_takes_relays_arguments() -> None:
    found = 0
    for name, field in fields():
        kind = field.type.of_type if isinstance(field.type, GraphQLNonNull) else field.type
        if kind in CONNECTIONS:
            found += 1
            assert {argument: field.args[argument].type for argument in PAGING} == PAGING, name
            assert all(_is_optional(field.args[argument]) for argument in PAGING), name
    assert found >= len(CONNECTIONS)


def test_a_node_has_an_id() -> None:
    node = CORE.type_map["Node"]
    assert isinstance(node, GraphQLInterfaceType)
    assert {name: str(field.type) for name, field in node.fields.items()} == {"id": "ID!"}
    query = CORE.query_type
    assert query is not None
    assert {name: str(argument.type) for name, argument in query.fields["node"].args.items()} == {"id": "ID!"}
    assert query.fields["node"].type is node


def test_mutations_have_one_input_and_a_payload_that_may_be_null() -> None:
    mutation = CORE.mutation_type
    assert mutation is not None
    for name, field in mutation.fields.items():
        word = name[0].upper() + name[1:]
        assert {argument: str(given.type) for argument, given in field.args.items()} == {"input": f"{word}Input!"}
        assert str(field.type) == f"{word}Payload"


def test_lists_have_no_holes() -> None:
    for name, field in fields():
        kind = field.type.of_type if isinstance(field.type, GraphQLNonNull) else field.type
        if isinstance(kind, GraphQLList) and name != "Query.nodes":  # null stands for an id that nothing has
            assert isinstance(kind.of_type, GraphQLNonNull), name


def _is_optional(argument: GraphQLArgument) -> bool:
    return not isinstance(argument.type, GraphQLNonNull)
