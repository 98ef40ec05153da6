"""Refusals of requests: a status, a code, and a sentence for each."""

import json

import pytest

from daos.http import refusals
from daos.http.negotiation import GRAPHQL_RESPONSE, JSON
from daos.http.refusals import (
    BodyTooLarge,
    MethodNotAllowed,
    NotAuthenticated,
    Refusal,
    TooManyStreams,
    TooSlowBody,
    Unexpected,
    respond,
)

WITH_ARGUMENTS = {BodyTooLarge, Unexpected}
KINDS = [kind for kind in vars(refusals).values() if isinstance(kind, type) and issubclass(kind, Refusal)]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in WITH_ARGUMENTS], ids=lambda kind: kind.__name__)
def test_each_says_its_sentence_with_a_code_and_a_status(kind: type[Refusal]) -> None:
    refusal = kind()
    assert str(refusal) == kind.__doc__
    assert refusal.extensions == {"code": kind.code, "status": kind.status}
    assert 400 <= kind.status < 500


@pytest.mark.parametrize(
    ("refusal", "headers"),
    [
        (NotAuthenticated(), {"www-authenticate": "Bearer"}),
        (MethodNotAllowed("POST"), {"allow": "POST"}),
        (TooSlowBody(), {"connection": "close"}),
        (TooManyStreams(), {"retry-after": "10"}),
    ],
)
def test_a_client_is_told_in_headers_what_to_do(refusal: Refusal, headers: dict[str, str]) -> None:
    answer = respond(refusal, JSON, {"X-Request-ID": "one"})
    assert dict(answer.headers).items() >= {"x-request-id": "one", **headers}.items()
    assert answer.status_code == refusal.status


def test_a_body_that_is_too_large_names_the_limit_and_the_setting() -> None:
    assert str(BodyTooLarge(5)) == "The request body has more than 5 bytes; send less, or raise DAOS_MAX_BODY."


@pytest.mark.parametrize(
    ("taken", "media_type"),
    [(GRAPHQL_RESPONSE, GRAPHQL_RESPONSE), (JSON, JSON), ("text/event-stream", JSON)],
)
def test_an_answer_is_of_a_type_that_the_client_takes(taken: str, media_type: str) -> None:
    answer = respond(refusals.BadRequest("It is wrong."), taken, {})
    assert answer.headers["content-type"] == f"{media_type}; charset=utf-8"
    [error] = json.loads(bytes(answer.body))["errors"]
    assert error == {"message": "It is wrong.", "extensions": {"code": "BAD_REQUEST", "status": 400}}


def test_what_was_not_expected_shows_an_id_and_no_details() -> None:
    refusal = Unexpected({"code": "INTERNAL_SERVER_ERROR", "status": 500, "errorId": "1"})
    [error] = json.loads(bytes(respond(refusal, JSON, {}).body))["errors"]
    assert error["message"] == "Internal server error."
    assert error["extensions"]["errorId"] == "1"
