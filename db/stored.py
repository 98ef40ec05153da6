"""Column types that tolerate values they cannot read.

A row may come from another release or be damaged: one unreadable value must not fail a whole list, or the subscription
of every client.  They are for values that are only displayed; values that decide what daos does, such as a role, are
read strictly.
"""

import logging
from collections.abc import Callable
from enum import StrEnum
from functools import lru_cache
from typing import Any, TypeVar

from sqlalchemy import JSON, Dialect, Enum
from sqlalchemy.types import TypeDecorator

from db.containers import Container, read_all

logger = logging.getLogger(__name__)

MOST_SHOWN = 100  # characters of an unreadable value
UNREADABLE = (ValueError, TypeError, LookupError, AttributeError, RecursionError)

Value = TypeVar("Value")
Word = TypeVar("Word", bound=StrEnum)


@lru_cache(maxsize=1000)  # lists are read repeatedly, and each value is logged once
def report(what: str, value: str) -> None:
    """Log that a stored value cannot be read."""
    logger.warning("a stored %s cannot be read: %s", what, value)


class Stored(TypeDecorator[Value]):
    """A column type that replaces an unreadable value with `instead()`."""

    impl: Any = JSON  # each type has its own
    cache_ok = True
    what = "value"  # for the log

    def instead(self) -> Value:
        raise NotImplementedError

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Value | None]:
        read = super().result_processor(dialect, coltype)

        def process(value: Any) -> Value | None:
            try:
                return read(value) if read is not None else value
            except UNREADABLE:
                report(self.what, repr(value)[:MOST_SHOWN])
                return self.instead()

        return process


class KnownWord(Stored[Word | None]):
    """A column with a member of `kind` as text; a text that names no member is read as `unknown`."""

    impl = Enum
    cache_ok = True

    def __init__(self, kind: type[Word], unknown: Word | None) -> None:
        self.kind = kind
        self.unknown = unknown
        self.what = kind.__name__
        super().__init__(kind, native_enum=False, create_constraint=False, length=32)

    def instead(self) -> Word | None:
        return self.unknown


class Texts(Stored[list[str]]):
    """A column of strings as JSON.  Entries that are not strings are left out."""

    impl = JSON
    cache_ok = True
    what = "list of texts"

    def process_result_value(self, value: Any, dialect: Dialect) -> list[str]:
        if value is None:
            return []
        if not isinstance(value, list):
            raise TypeError
        texts = [text for text in value if isinstance(text, str)]
        if len(texts) < len(value):
            report(self.what, repr(value)[:MOST_SHOWN])
        return texts

    def instead(self) -> list[str]:
        return []


class Containers(Stored[list[Container]]):
    """Containers as JSON.  Entries that cannot be read, as of an older daos, are left out."""

    impl = JSON
    cache_ok = True
    what = "list of containers"

    def process_bind_param(self, value: list[Container] | None, dialect: Dialect) -> list[dict[str, Any]] | None:
        return None if value is None else [container.write() for container in value]

    def process_result_value(self, value: Any, dialect: Dialect) -> list[Container]:
        containers, problems = read_all(value)
        if problems:
            report(self.what, f"{problems[0]}, and {len(problems) - 1} more problems"[:MOST_SHOWN])
        return containers

    def instead(self) -> list[Container]:
        return []
