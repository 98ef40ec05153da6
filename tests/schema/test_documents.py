"""Known documents are neither parsed nor validated again, and still looked at."""

from typing import Any

import pytest
import strawberry
from graphql import DocumentNode, parse

import schema
from schema import documents
from schema.documents import KnownDocuments, Remembered
from schema.limits import Limited, Limits

DOCUMENT = "query ($n: Int) { a: count(first: $n) }"


@strawberry.type
class Query:
    @strawberry.field
    def count(self, first: int | None = 0) -> int:
        return first or 0


def make(known: KnownDocuments) -> schema.Schema:
    limits = Limits(aliases=1)
    return schema.Schema(Query, extensions=[lambda: Limited(limits), lambda: Remembered(known)])


async def ask(asked: schema.Schema, document: str, name: str | None = None, **variables: Any) -> Any:
    return await asked.execute(document, variable_values=variables, operation_name=name)


async def test_a_valid_document_is_known_from_then_on() -> None:
    known = KnownDocuments()
    asked = make(known)
    assert (await ask(asked, DOCUMENT, n=1)).data == {"a": 1}
    parsed = known.get(DOCUMENT)
    assert isinstance(parsed, DocumentNode)
    assert (await ask(asked, DOCUMENT, n=2)).data == {"a": 2}
    assert known.get(DOCUMENT) is parsed


async def test_a_known_document_with_other_variables_is_checked() -> None:
    asked = make(KnownDocuments())
    await ask(asked, DOCUMENT, n=1)
    [error] = (await ask(asked, DOCUMENT, n="x")).errors
    assert error.extensions["code"] == "BAD_USER_INPUT"


@pytest.mark.parametrize("document", ["{", "{ nope }", "{ a: count b: count }"])
async def test_what_is_refused_is_not_remembered(document: str) -> None:
    known = KnownDocuments()
    asked = make(known)
    for _ in range(2):
        assert (await ask(asked, document)).errors
    assert known.get(document) is None


async def test_the_operation_of_a_known_document_is_looked_at() -> None:
    asked = make(KnownDocuments())
    document = "query Small { count } query Large { a: count b: count }"
    for _ in range(2):
        assert (await ask(asked, document, "Small")).data == {"count": 0}
        [error] = (await ask(asked, document, "Large")).errors
        assert error.extensions["code"] == "OPERATION_TOO_COMPLEX"


def test_the_document_that_was_not_asked_for_the_longest_time_is_forgotten() -> None:
    known = KnownDocuments()
    parsed = parse("{ a }")
    for number in range(documents.MAX_DOCUMENTS):
        known.remember(str(number), parsed)
    assert known.get("0") is parsed
    known.remember("new", parsed)
    assert known.get("0") is parsed
    assert known.get("1") is None


def test_a_long_document_is_not_remembered() -> None:
    known = KnownDocuments()
    known.remember("x" * (documents.MAX_LENGTH + 1), parse("{ a }"))
    assert known.get("x" * (documents.MAX_LENGTH + 1)) is None
