"""What a client's Accept header prefers."""

import pytest

from daos.http.negotiation import EVENTS, GRAPHQL_RESPONSE, JSON, Answer, negotiate


@pytest.mark.parametrize(
    ("accept", "answer"),
    [
        ("", Answer(JSON, events=True)),
        ("*/*", Answer(JSON, events=True)),
        ("application/*", Answer(JSON)),
        ("text/*", Answer(EVENTS, events=True)),
        (JSON, Answer(JSON)),
        (GRAPHQL_RESPONSE, Answer(GRAPHQL_RESPONSE)),
        (EVENTS, Answer(EVENTS, events=True)),
        (f"{JSON}, {GRAPHQL_RESPONSE}", Answer(GRAPHQL_RESPONSE)),
        (f"{EVENTS}, {JSON}", Answer(JSON, events=True)),
        (f"{EVENTS}, {JSON};q=0.9", Answer(EVENTS, events=True)),
        (f"{EVENTS}, */*;q=0.5", Answer(EVENTS, events=True)),
        (f"{GRAPHQL_RESPONSE}; charset=utf-8, {JSON}; charset=utf-8; q=0.1", Answer(GRAPHQL_RESPONSE)),
        (f"Application/JSON;Q=0.5, {GRAPHQL_RESPONSE};q=0.4", Answer(JSON)),
        (f"*/*, {EVENTS};q=0", Answer(JSON)),
        (f"{JSON};q=0, */*", Answer(GRAPHQL_RESPONSE, events=True)),
        ("image/png", None),
        (f"{JSON};q=0", None),
        (f"{JSON};q=x", None),
        (f"{JSON};q=nan", None),
        (",;,", None),
    ],
)
def test_the_preferred_answer_is_found(accept: str, answer: Answer | None) -> None:
    assert negotiate(accept) == answer
