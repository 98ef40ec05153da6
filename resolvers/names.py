"""Conditions on names, by what a client looks for: text that no name can have matches nothing, and is no error."""

from sqlalchemy import ColumnElement, SQLColumnExpression, false, or_

MAX_PART = 255  # characters; no name has more, and SQLite refuses long patterns


def equals(column: SQLColumnExpression[str], text: str) -> ColumnElement[bool]:
    """Whether the name is `text`."""
    return column == text if _can_be_stored(text) else false()


def contain(part: str, *columns: SQLColumnExpression[str] | SQLColumnExpression[str | None]) -> ColumnElement[bool]:
    """Whether one of the names has `part` in it, ignoring case; `%` and `_` are letters like others."""
    if len(part) > MAX_PART or not _can_be_stored(part):
        return false()
    return or_(*(column.icontains(part, autoescape=True) for column in columns))


def _can_be_stored(text: str) -> bool:
    """Whether both databases take the text: PostgreSQL refuses NUL, and UTF-8 has no surrogates."""
    return not any(letter == "\0" or "\ud800" <= letter <= "\udfff" for letter in text)
