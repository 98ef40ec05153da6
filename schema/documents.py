"""Caches valid documents: clients send the same few repeatedly.

Parsing and validation take three quarters of the time in which `{ __typename }` is answered.
"""

from collections import OrderedDict
from collections.abc import Iterator

from graphql import DocumentNode
from strawberry.extensions import SchemaExtension

MAX_DOCUMENTS = 64
MAX_LENGTH = 4096  # characters; a parsed document is about a hundred times larger


class KnownDocuments:
    """The least recently used cache of one schema's valid documents."""

    def __init__(self) -> None:
        self._documents: OrderedDict[str, DocumentNode] = OrderedDict()

    def get(self, text: str | None) -> DocumentNode | None:
        """Return the parsed document, or None if it is not cached."""
        document = self._documents.get(text or "")
        if document is not None:
            self._documents.move_to_end(text or "")
        return document

    def remember(self, text: str, document: DocumentNode) -> None:
        """Cache a valid document, and drop the least recently used one if the cache is full."""
        if len(text) <= MAX_LENGTH:
            self._documents[text] = document
            if len(self._documents) > MAX_DOCUMENTS:
                self._documents.popitem(last=False)


class Remembered(SchemaExtension):
    """Skips parsing and validation of cached documents.  It comes after `Limited`, which measures every document."""

    def __init__(self, known: KnownDocuments) -> None:
        self._known = known
        self._is_known = False

    def on_parse(self) -> Iterator[None]:
        document = self._known.get(self.execution_context.query)
        if document is not None:
            self.execution_context.graphql_document = document
            self._is_known = True
        yield

    def on_validate(self) -> Iterator[None]:
        context = self.execution_context
        if self._is_known and context.pre_execution_errors is None:
            context.pre_execution_errors = []  # for Strawberry this means that it has been validated
        yield
        if not self._is_known and not context.pre_execution_errors and context.query and context.graphql_document:
            self._known.remember(context.query, context.graphql_document)
