"""Ids in the form that clients send."""

from uuid import UUID


def parse(text: str) -> UUID | None:
    """Return the id in `text`; None if it is malformed: ids are opaque, so a malformed id is an unknown one."""
    try:
        value = UUID(text)
    except ValueError:
        return None
    return value if str(value) == text.lower() else None  # UUID() also accepts braces, "urn:uuid:", no hyphens
