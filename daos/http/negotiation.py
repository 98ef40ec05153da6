"""Which of the answers that there are a client prefers, by its Accept header."""

from dataclasses import dataclass
from functools import lru_cache

GRAPHQL_RESPONSE = "application/graphql-response+json"
JSON = "application/json"
EVENTS = "text/event-stream"

NAMED = (GRAPHQL_RESPONSE, JSON, EVENTS)  # which of them, where a client names several and prefers none
UNNAMED = (JSON, GRAPHQL_RESPONSE, EVENTS)  # where it takes anything


@dataclass(frozen=True)
class Answer:
    """What a client takes.  `events` says whether that is text/event-stream too, preferred or not."""

    media_type: str
    events: bool = False


@lru_cache(maxsize=64)
def negotiate(accept: str) -> Answer | None:
    """The answer for an Accept header, None where there is none that the client takes.

    text/event-stream is preferred only where it alone is: urql names it in every request.
    """
    ranges = [_range(part) for part in accept.split(",") if part.strip()] or [("*/*", 1.0)]
    ranked = [(rank, media_type) for media_type in NAMED if (rank := _rank(media_type, ranges)) is not None]
    if not ranked:
        return None
    return Answer(max(ranked)[1], events=any(media_type == EVENTS for _, media_type in ranked))


def _range(part: str) -> tuple[str, float]:
    name, *parameters = (piece.strip() for piece in part.lower().split(";"))
    quality = 1.0
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        if key.strip() == "q":
            try:
                quality = min(max(float(value), 0.0), 1.0)
            except ValueError:
                quality = 0.0
    return name, quality


def _rank(media_type: str, ranges: list[tuple[str, float]]) -> tuple[float, int, int] | None:
    """How much a client wants `media_type`: quality, how exactly it was named, and our own order."""
    forms = ("*/*", media_type.partition("/")[0] + "/*", media_type)
    found = [(forms.index(name), quality) for name, quality in ranges if name in forms]
    if not found:
        return None
    exactness, quality = max(found)  # the most exact range decides, `q=0` in it too
    if not quality > 0:
        return None
    order = NAMED if exactness == len(forms) - 1 else UNNAMED
    return quality, exactness, -order.index(media_type)
