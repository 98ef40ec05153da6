"""Limits on what one operation may request, measured once, with fragments expanded and before validation.

Strawberry's QueryDepthLimiter and MaxAliasesLimiter expand a fragment again at every spread: an 832-byte document
blocks the server for 26 seconds (seen in 0.341.2).  Here each fragment is measured only once.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    GraphQLField,
    GraphQLInterfaceType,
    GraphQLNamedType,
    GraphQLObjectType,
    GraphQLSchema,
    GraphQLSyntaxError,
    InlineFragmentNode,
    IntValueNode,
    ListValueNode,
    OperationDefinitionNode,
    OperationType,
    SelectionSetNode,
    ValueNode,
    VariableNode,
    get_named_type,
)
from strawberry.extensions import SchemaExtension

from resolvers.errors import ErrorCode
from resolvers.paging import DEFAULT_SIZE, MAX_SIZE
from schema.answer import MAX_ANSWER
from schema.context import Context

ABORTED = re.compile(r"more than (?P<most>\d+) (?P<limit>tokens|comments|code points)\. Parsing aborted\.$")
MAX_LEVELS = 100  # nested selections and fragments; more would exhaust the stack during validation
INTROSPECTION = ("__schema", "__type")  # graphql-core's MaxIntrospectionDepthRule limits their depth


@dataclass(frozen=True)
class Limits:
    """The limits of one operation."""

    depth: int = 15  # nested fields
    aliases: int = 50
    fields: int = 1000
    cost: int = 50_000  # fields to resolve if every list is as long as its page allows
    tokens: int = 2000  # in the document; the same limit applies to comments
    characters: int = 256 * 1024  # in the document; files belong in variables, which are not counted
    values: int = 20_000  # in the variables, including lists and objects; a million of them take several seconds
    seconds: float = 30.0  # for a query or mutation, and for each event of a subscription
    answer: int = MAX_ANSWER  # bytes of an answer and of each event, in memory and as JSON


class TooSlow(Exception):
    """The operation exceeded its time limit."""


@dataclass(frozen=True)
class Size:
    """The size of a selection."""

    depth: int = 0
    aliases: int = 0
    fields: int = 0
    cost: int = 0

    def beside(self, other: "Size") -> "Size":
        return Size(
            depth=max(self.depth, other.depth),
            aliases=self.aliases + other.aliases,
            fields=self.fields + other.fields,
            cost=self.cost + other.cost,
        )


class Limited(SchemaExtension):
    """Refuses operations that exceed a limit, and ends those that take too long."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits

    def on_operation(self) -> Iterator[None]:
        # Strawberry's MaxTokensLimiter sets `max_tokens`, which is deprecated in graphql-core 3.3.
        options: dict[str, Any] = self.execution_context.parse_options  # type: ignore[assignment] # it has more options
        options["max_lexical_tokens"] = self._limits.tokens
        options["max_comments"] = self._limits.tokens
        options["max_source_length"] = self._limits.characters
        yield

    def on_validate(self) -> Iterator[None]:
        # Existing errors keep Strawberry from validating, which a refused operation does not need.
        # A raised error would end an operation of a WebSocket with `complete` and no error (0.341.2).
        self.execution_context.pre_execution_errors = self._refusal()
        yield

    async def on_execute(self) -> AsyncIterator[None]:
        # For a subscription this covers only the start.
        try:
            async with asyncio.timeout(self._limits.seconds):
                yield
        except TimeoutError as error:
            raise TooSlow from error

    def _refusal(self) -> list[GraphQLError] | None:
        document = self.execution_context.graphql_document
        assert document is not None
        operation = self._operation(document)
        if operation is None:
            # Strawberry would run the first one (0.341.2).
            message = "The document has several operations; select one with operationName."
            return [GraphQLError(message, extensions={"code": "OPERATION_RESOLUTION_FAILURE", "status": 400})]
        schema = self.execution_context.schema._schema
        variables = self.execution_context.variables or {}
        if _has_more_values(variables, self._limits.values):
            return [too_complex("values", self._limits.values)]
        try:
            size = measure(schema, document, operation, variables)
        except NestedTooDeeply:
            return [too_complex("depth", self._limits.depth)]
        context = self.execution_context.context
        if operation.operation is OperationType.SUBSCRIPTION and isinstance(context, Context):
            context.cost = size.cost
        for limit in ("depth", "aliases", "fields", "cost"):
            most = getattr(self._limits, limit)
            if getattr(size, limit) > most:
                return [too_complex(limit, most)]
        return None

    def _operation(self, document: DocumentNode) -> OperationDefinitionNode | None:
        """Return the requested operation; None if it is ambiguous."""
        operations = [node for node in document.definitions if isinstance(node, OperationDefinitionNode)]
        if len(operations) == 1:
            return operations[0]
        # Not `operation_name`: it falls back to the name of the first operation if the request has none.
        wanted = self.execution_context._provided_operation_name
        named = (node for node in operations if node.name is not None and node.name.value == wanted)
        return next(named, None)


def too_complex(limit: str, most: float, message: str | None = None) -> GraphQLError:
    """Return the error of an operation that exceeds `limit`."""
    extensions = {"code": ErrorCode.OPERATION_TOO_COMPLEX.value, "status": 400, "limit": limit, "max": most}
    return GraphQLError(message or _SENTENCES[limit].format(most=most), extensions=extensions)


_SENTENCES = {
    "depth": "The operation nests fields more than {most} levels deep; split it into several operations.",
    "aliases": "The operation has more than {most} aliases; split it into several operations.",
    "fields": "The operation has more than {most} fields; split it into several operations.",
    "cost": "The operation can resolve more than {most} fields; request smaller pages with `first`, or fewer fields.",
    "tokens": "The document has more than {most} tokens; move long lists to variables, or split it up.",
    "comments": "The document has more than {most} comments; remove some.",
    "characters": "The document has more than {most} characters; move files and other long text to variables.",
    "values": "The variables have more than {most} values; send them in several operations.",
}


def exceeded(error: GraphQLSyntaxError) -> GraphQLError | None:
    """Return the replacement for `error` if the parser stopped at one of its limits; otherwise None."""
    found = ABORTED.search(error.message)
    if found is None:
        return None
    return too_complex(found["limit"].replace("code points", "characters"), int(found["most"]))


def _has_more_values(variables: Mapping[str, object], most: int) -> bool:
    """Whether JSON has more than `most` values inside each other and beside each other."""
    count = 0
    pending: list[Any] = [variables]
    while pending and count <= most:
        value = pending.pop()
        members = value if isinstance(value, list) else value.values()
        count += len(members)
        pending.extend(member for member in members if isinstance(member, dict | list))
    return count > most


class NestedTooDeeply(Exception):
    """Selections and fragments are nested more than MAX_LEVELS deep."""


def measure(
    schema: GraphQLSchema, document: DocumentNode, operation: OperationDefinitionNode, variables: Mapping[str, object]
) -> Size:
    """Return the size of `operation`; other errors in it are left to validation.  Raises: NestedTooDeeply."""
    fragments = {node.name.value: node for node in document.definitions if isinstance(node, FragmentDefinitionNode)}
    measuring = _Measuring(schema, fragments, {**_defaults(operation), **variables})
    return measuring.selections(operation.selection_set, schema.get_root_type(operation.operation), 0)


def _defaults(operation: OperationDefinitionNode) -> dict[str, object]:
    return {
        definition.variable.name.value: _constant(definition.default_value)
        for definition in operation.variable_definitions or ()
        if definition.default_value is not None
    }


@dataclass
class _Measuring:
    schema: GraphQLSchema
    fragments: Mapping[str, FragmentDefinitionNode]
    variables: Mapping[str, object]
    measured: dict[str, Size] = field(default_factory=dict)  # fragments by name

    def selections(self, node: SelectionSetNode | None, parent: GraphQLNamedType | None, level: int) -> Size:
        if level > MAX_LEVELS:
            raise NestedTooDeeply
        size = Size()
        for selection in node.selections if node is not None else ():
            match selection:
                case FieldNode():
                    size = size.beside(self._field(selection, parent, level))
                case InlineFragmentNode(type_condition=None):
                    size = size.beside(self.selections(selection.selection_set, parent, level + 1))
                case InlineFragmentNode():
                    size = size.beside(self._conditional(selection, level))
                case FragmentSpreadNode():
                    size = size.beside(self._fragment(selection.name.value, level))
        return size

    def _field(self, node: FieldNode, parent: GraphQLNamedType | None, level: int) -> Size:
        name = node.name.value
        definition = parent.fields.get(name) if isinstance(parent, GraphQLObjectType | GraphQLInterfaceType) else None
        kind = get_named_type(definition.type) if definition is not None else None
        below = self.selections(node.selection_set, kind, level + 1)
        return Size(
            depth=1 if name in INTROSPECTION else 1 + below.depth,
            aliases=below.aliases + (node.alias is not None),
            fields=below.fields + 1,
            cost=below.cost * self._length(node, definition) + 1,
        )

    def _conditional(self, node: InlineFragmentNode | FragmentDefinitionNode, level: int) -> Size:
        assert node.type_condition is not None
        return self.selections(node.selection_set, self.schema.get_type(node.type_condition.name.value), level + 1)

    def _fragment(self, name: str, level: int) -> Size:
        fragment = self.fragments.get(name)
        if fragment is None:
            return Size()
        if name not in self.measured:
            self.measured[name] = Size()  # a fragment inside itself counts as empty; validation rejects it
            self.measured[name] = self._conditional(fragment, level)
        return self.measured[name]

    def _length(self, node: FieldNode, definition: GraphQLField | None) -> int:
        """Return how many times the field's selections are resolved: up to the page size, or once per id of `ids`."""
        if definition is None:
            return 1
        given = {argument.name.value: self._value(argument.value) for argument in node.arguments or ()}
        if "ids" in definition.args:
            ids = given.get("ids")
            return min(len(ids), MAX_SIZE) if isinstance(ids, list) else 1  # a single value is coerced to a list
        if not {"first", "last"} <= definition.args.keys():
            return 1
        sizes = [size for name in ("first", "last") if isinstance(size := given.get(name), int)]
        # A value out of range is refused by the resolver, with a better message.
        return max(0, min(max(sizes), MAX_SIZE)) if sizes else DEFAULT_SIZE

    def _value(self, node: ValueNode) -> object:
        return self.variables.get(node.name.value) if isinstance(node, VariableNode) else _constant(node)


def _constant(node: ValueNode) -> int | list[None] | None:
    """Return an integer, or a list of the literal's length; None for anything else, whose value does not matter."""
    if isinstance(node, ListValueNode):
        return [None] * len(node.values)
    if not isinstance(node, IntValueNode):
        return None
    return int(node.value) if len(node.value) < len(str(2**31)) + 2 else MAX_SIZE
