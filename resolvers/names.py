"""Conditions on names for searches by clients.  A text that no name can have matches nothing and is not an error."""

from collections.abc import Collection

from sqlalchemy import ColumnElement, SQLColumnExpression, false, or_

from resolvers.errors import InvalidInput, Problem

MAX_PART = 255  # characters; no name has more, and SQLite refuses long patterns
MAX_CHOICES = 100  # in one filter; a list below 100 parents repeats them for each, and SQLite accepts 32766 values


def equals(column: SQLColumnExpression[str], text: str) -> ColumnElement[bool]:
    """Return the condition that the name is `text`."""
    return column == text if can_be_stored(text) else false()


def is_one_of(column: SQLColumnExpression[str], texts: Collection[str]) -> ColumnElement[bool]:
    """Return the condition that the name is one of `texts`."""
    return column.in_(sorted(filter(can_be_stored, texts)))


def check_choices(argument: str, texts: Collection[str] | None) -> None:
    """Check the number of names in a filter.  Raises: InvalidInput."""
    if texts is not None and len(texts) > MAX_CHOICES:
        message = f"{argument} must have at most {MAX_CHOICES} entries."
        raise InvalidInput([Problem(("filter", argument), "TOO_MANY", message)])


def contain(part: str, *columns: SQLColumnExpression[str] | SQLColumnExpression[str | None]) -> ColumnElement[bool]:
    """Return the condition that one of the names contains `part`, ignoring case; `%` and `_` are not wildcards."""
    if len(part) > MAX_PART or not can_be_stored(part):
        return false()
    return or_(*(column.icontains(part, autoescape=True) for column in columns))


def can_be_stored(text: str) -> bool:
    """Return whether both databases can store the text: PostgreSQL rejects NUL, and UTF-8 has no surrogates."""
    return not any(letter == "\0" or "\ud800" <= letter <= "\udfff" for letter in text)
