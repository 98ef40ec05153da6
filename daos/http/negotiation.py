"""Content negotiation: selects the media type of a response by the Accept header."""

from dataclasses import dataclass
from functools import lru_cache

GRAPHQL_RESPONSE = "application/graphql-response+json"
JSON = "application/json"
EVENTS = "text/event-stream"

NAMED = (GRAPHQL_RESPONSE, JSON, EVENTS)  # the order if a client names several with equal preference
UNNAMED = (JSON, GRAPHQL_RESPONSE, EVENTS)  # the order if a wildcard matches


@dataclass(frozen=True)
class Answer:
    """The selected media type.  `events`: whether the client accepts text/event-stream at all."""

    media_type: str
    events: bool = False


@lru_cache(maxsize=64)
def negotiate(accept: str) -> Answer | None:
    """Return the media type for an Accept header, None if the client accepts none of them.

    text/event-stream is selected only if nothing else is accepted: urql names it in every request.
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
    """Return the preference for `media_type`: quality, how specific the range is, and the server's order."""
    forms = ("*/*", media_type.partition("/")[0] + "/*", media_type)
    found = [(forms.index(name), quality) for name, quality in ranges if name in forms]
    if not found:
        return None
    exactness, quality = max(found)  # the most specific range decides, even with `q=0`
    if not quality > 0:
        return None
    order = NAMED if exactness == len(forms) - 1 else UNNAMED
    return quality, exactness, -order.index(media_type)
