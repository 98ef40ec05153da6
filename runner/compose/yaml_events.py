"""Parses Compose's YAML within limits: events for the rules, and a bounded tree for lookups.

Aliases are not expanded: an alias is the node that it refers to, so an alias bomb has only a few nodes.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import yaml

from runner.compose.interpolation import Requirement, requirements_of

MAX_DEPTH = 100  # levels; Docker's own parser is recursive, too
MERGE = "<<"

# libyaml compares each directive with all before it: a megabyte of them blocks the whole server for half a minute.
TAG_DIRECTIVE = re.compile(r"(?:\A|[\n\r\x85\u2028\u2029\ufeff])%TAG")

# libyaml's messages that are most often caused by a wrong indentation
_OFTEN_INDENTATION = re.compile(r"did not find expected (key|'-' indicator)|mapping values are not allowed")

Node = str | list["Node"] | dict[str, "Node"]


class Unreadable(Exception):
    """The text is not YAML that Compose reads; the message says why, as a predicate of the text's name."""


class TooLarge(Exception):
    """The YAML exceeds a limit."""


@dataclass
class Document:
    """The content of one file: the root of each YAML document, and what its values require."""

    roots: list[Node] = field(default_factory=list)
    requirements: dict[Requirement, None] = field(default_factory=dict)


def events(text: str) -> Iterator[yaml.Event]:
    """Yield the events of `text`, nested at most `MAX_DEPTH` deep.  Raises: Unreadable."""
    if TAG_DIRECTIVE.search(text):
        raise Unreadable("must not have %TAG directives")
    depth = 0
    try:
        for event in yaml.parse(text, Loader=yaml.CSafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                raise Unreadable(f"must not be nested deeper than {MAX_DEPTH} levels")
            yield event
    except yaml.MarkedYAMLError as error:
        raise Unreadable(_sentence(error.problem, error.problem_mark, text)) from error
    except yaml.reader.ReaderError as error:
        line = text.encode()[: error.position].count(b"\n") + 1  # libyaml counts bytes here
        raise Unreadable(
            f"is not valid YAML at line {line}: the character U+{error.character:04X} is not allowed"
        ) from error
    except UnicodeEncodeError as error:
        raise Unreadable("is not valid YAML: half of a surrogate pair is not allowed") from error


def _sentence(problem: str | None, mark: yaml.Mark | None, text: str) -> str:
    """Return what is wrong and where, with a remedy if the parser's message is misleading."""
    if mark is None:
        return f"is not valid YAML: {problem}"
    where = f"is not valid YAML at line {mark.line + 1}, column {mark.column + 1}"
    lines = text.splitlines()
    line = lines[mark.line] if mark.line < len(lines) else ""
    if problem == "found character that cannot start any token" and line[mark.column : mark.column + 1] == "\t":
        return f"{where}: there is a tab; indent with spaces"
    hint = "; check the indentation there" if _OFTEN_INDENTATION.match(problem or "") else ""
    return f"{where}: {problem}{hint}"


def read(text: str, max_nodes: int) -> tuple[Document, int]:
    """Return the documents in `text`, and how many nodes they have.  Raises: Unreadable, TooLarge."""
    builder = _Builder(max_nodes)
    for event in events(text):
        builder.add(event)
    return builder.document, builder.nodes


@dataclass
class _Frame:
    """A mapping or sequence that is being read."""

    node: list[Node] | dict[str, Node]
    is_ignored: bool  # `!reset`, or inside a key
    key: Node | None = None  # of the next value


class _Builder:
    """Builds nodes from events."""

    def __init__(self, max_nodes: int) -> None:
        self.document = Document()
        self.nodes = 0
        self._max_nodes = max_nodes
        self._frames: list[_Frame] = []
        self._anchors: dict[str, Node] = {}

    def add(self, event: yaml.Event) -> None:
        if isinstance(event, yaml.DocumentStartEvent):
            self._anchors = {}
        elif isinstance(event, yaml.CollectionEndEvent):
            self._frames.pop()
        elif isinstance(event, yaml.NodeEvent):
            self.nodes += 1
            if self.nodes > self._max_nodes:
                raise TooLarge
            self._node(event)

    def _node(self, event: yaml.NodeEvent) -> None:
        frame = self._frames[-1] if self._frames else None
        is_key = frame is not None and isinstance(frame.node, dict) and frame.key is None
        # Compose removes values with the tag `!reset` before it interpolates, and does not interpolate keys.
        is_reset = getattr(event, "tag", None) == "!reset"
        is_ignored = is_key or is_reset or (frame is not None and frame.is_ignored)
        node = self._new(event, is_ignored=is_ignored)
        if frame is None:
            self.document.roots.append(node)
        elif isinstance(frame.node, list):
            if not is_reset:
                frame.node.append(node)
        elif is_key:
            frame.key = node
        else:
            if isinstance(frame.key, str) and not is_reset:
                frame.node[frame.key] = node
            frame.key = None
        if isinstance(node, list | dict) and isinstance(event, yaml.CollectionStartEvent):
            self._frames.append(_Frame(node, is_ignored))

    def _new(self, event: yaml.NodeEvent, *, is_ignored: bool) -> Node:
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self._anchors:
                raise Unreadable(f"is not valid YAML: unknown anchor '{event.anchor}'")
            return self._anchors[event.anchor]
        node: Node = {} if isinstance(event, yaml.MappingStartEvent) else []
        if isinstance(event, yaml.ScalarEvent):
            node = event.value
            if not is_ignored:
                self.document.requirements.update(dict.fromkeys(requirements_of(event.value)))
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        return node
