"""graphql-eslint's recommended rules for schemas and its rules for Relay.  tests/node/lint.js has their options."""

from pathlib import Path

import schema
from tests.support.node import Node

PRINTED = Path(schema.__file__).with_name("schema.graphql")
# The contract fixes these names. A host's hostKeyFingerprint is that of the key that its sshd
# shows, and an ErrorCode is in the extensions of an error, which have no type.
FIXED = {
    ("no-typename-prefix", "hostKeyFingerprint: String"),
    ("no-unreachable-types", "enum ErrorCode {"),
    ("strict-id-in-types", "type RunPhase {"),
    ("strict-id-in-types", "type Viewer {"),
}
BAD = '''
"""The queries."""
type Query {
  """The things."""
  getThings: ThingConnection!
}

"""A page of a list."""
type ThingConnection {
  edges: [ThingEdge!]!
}

"""An item of a list, with its cursor."""
type ThingEdge {
  cursor: String!
}

type Thing {
  thingName: String!
}

"""The position of a page in its list."""
type PageInfo {
  hasNextPage: Boolean
  hasPreviousPage: Boolean!
  startCursor: String
  endCursor: String
}
'''


async def lint(node: Node, sdl: str) -> set[tuple[str, str]]:
    """The rules that do not hold, each with the line where."""
    lines = sdl.splitlines()
    found = await node.run("lint.js", given=sdl)
    return {(str(one["rule"]).removeprefix("@graphql-eslint/"), lines[one["line"] - 1].strip()) for one in found}


async def test_the_printed_schema_keeps_the_rules_but_for_fixed_names(node: Node) -> None:
    assert await lint(node, PRINTED.read_text()) == FIXED


async def test_the_rules_find_what_a_bad_schema_lacks(node: Node) -> None:
    assert await lint(node, BAD) == {
        ("naming-convention", "getThings: ThingConnection!"),
        ("relay-arguments", "getThings: ThingConnection!"),
        ("relay-connection-types", "type ThingConnection {"),
        ("relay-edge-types", "type ThingEdge {"),
        ("require-description", "type Thing {"),
        ("no-unreachable-types", "type Thing {"),
        ("no-unreachable-types", "type PageInfo {"),
        ("strict-id-in-types", "type Thing {"),
        ("no-typename-prefix", "thingName: String!"),
        ("relay-page-info", "hasNextPage: Boolean"),
    }
