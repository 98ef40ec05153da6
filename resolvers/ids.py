"""Ids as clients write them."""

from uuid import UUID


def parse(text: str) -> UUID | None:
    """The id in `text`, or None where it is none: ids are opaque, so a malformed one is one that nothing has."""
    try:
        value = UUID(text)
    except ValueError:
        return None
    return value if str(value) == text.lower() else None  # UUID() also takes braces, "urn:uuid:" and no hyphens
