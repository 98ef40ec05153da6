"""Scalars of the API."""

from datetime import UTC, datetime

import strawberry


def _serialize(value: datetime) -> str:
    # The specification that the scalar names requires exactly three fractional digits.
    return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _parse(value: object) -> datetime:
    """Parse RFC 3339 with an offset.  Strawberry's own scalar accepts times without one, which are ambiguous.

    Raises: ValueError.
    """
    if not isinstance(value, str):
        raise ValueError("DateTime must be a string")
    try:
        parsed = datetime.fromisoformat(value)
    except ValueError as error:
        raise ValueError("DateTime must be RFC 3339, like 2026-01-31T12:00:00Z") from error
    if parsed.tzinfo is None:
        raise ValueError("DateTime must have an offset, like Z or +01:00")
    try:
        return parsed.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("DateTime must be in the years 1 to 9999 in UTC") from error


DATE_TIME = strawberry.scalar(
    name="DateTime",
    description="RFC 3339, always UTC with `Z`.",
    specified_by_url="https://scalars.graphql.org/andimarek/date-time.html",
    serialize=_serialize,
    parse_value=_parse,
)
