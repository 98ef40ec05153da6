"""Remembers documents that were found valid: clients send the same few again and again.

Parsing and validating `{ __typename }` is three quarters of the time that its answer takes.
"""

from collections import OrderedDict
from collections.abc import Iterator

from graphql import DocumentNode
from strawberry.extensions import SchemaExtension

MAX_DOCUMENTS = 64
MAX_LENGTH = 4096  # characters; parsed, a document is some hundred times larger


class KnownDocuments:
    """The valid documents that were asked for last, of one schema."""

    def __init__(self) -> None:
        self._documents: OrderedDict[str, DocumentNode] = OrderedDict()

    def get(self, text: str | None) -> DocumentNode | None:
        """The parsed document, None where it is not known."""
        document = self._documents.get(text or "")
        if document is not None:
            self._documents.move_to_end(text or "")
        return document

    def remember(self, text: str, document: DocumentNode) -> None:
        """Know a valid document from now on, in place of the one that was not asked for the longest time."""
        if len(text) <= MAX_LENGTH:
            self._documents[text] = document
            if len(self._documents) > MAX_DOCUMENTS:
                self._documents.popitem(last=False)


class Remembered(SchemaExtension):
    """Spares known documents their parsing and validation.  Its place is behind `Limited`, which looks at all."""

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
            context.pre_execution_errors = []  # Strawberry's sign that it was validated
        yield
        if not self._is_known and not context.pre_execution_errors and context.query and context.graphql_document:
            self._known.remember(context.query, context.graphql_document)
