"""The bytes of an answer, and its JSON."""

import asyncio
import json

import pytest

from schema.answer import (
    LARGE,
    Answer,
    AnswerTooLarge,
    Budget,
    Encoder,
    Outstanding,
    TooManyAnswers,
    size_of,
)
from schema.pace import Pace

VALUE: dict[str, object] = {"a": [1, None, True, 'é\x01"\n', {"b": []}], "c": {}}


async def test_the_json_is_that_of_pythons_own_encoder() -> None:
    assert await Encoder(Pace(), 1000).encode(VALUE) == json.dumps(VALUE, separators=(",", ":"))


async def test_json_above_the_limit_is_refused() -> None:
    size = len(json.dumps(VALUE, separators=(",", ":")))
    await Encoder(Pace(), size).encode(VALUE)
    with pytest.raises(AnswerTooLarge):
        await Encoder(Pace(), size - 1).encode(VALUE)


async def test_others_are_served_while_an_answer_is_encoded() -> None:
    served = 0

    async def other() -> None:
        nonlocal served
        while True:
            await asyncio.sleep(0)
            served += 1

    task = asyncio.create_task(other())
    text = await Encoder(Pace(0.0), 10**8).encode(["x" * 1000] * 1000)
    task.cancel()
    assert len(text) > 1000 * 1000
    assert served >= 400


def test_a_budget_that_is_exceeded_stays_so() -> None:
    budget = Budget(10)
    budget.charge(10)
    budget.check()
    with pytest.raises(AnswerTooLarge, match="more than 10 bytes"):
        budget.charge(1)
    with pytest.raises(AnswerTooLarge):
        budget.check()


@pytest.mark.parametrize("text", ["x" * 100_000, "é" * 100_000, "世" * 100_000, "x" * 99_999 + "😀"])
def test_a_text_counts_with_its_memory(text: str) -> None:
    assert text.__sizeof__() <= size_of(text) < text.__sizeof__() + 100


def test_an_answer_knows_whether_it_is_large() -> None:
    assert [Answer({}, size).is_large for size in (LARGE, LARGE + 1)] == [False, True]


def test_the_large_answers_of_one_token_are_limited_together() -> None:
    outstanding = Outstanding(4 * LARGE)
    first, second, other = (Budget(10 * LARGE, outstanding.share(key)) for key in ("one", "one", "other"))
    first.charge(3 * LARGE)
    second.charge(LARGE)  # small ones do not count
    other.charge(4 * LARGE)
    with pytest.raises(TooManyAnswers, match="not yet received") as refused:
        second.charge(1)
    assert refused.value.extensions == {
        "code": "OPERATION_TOO_COMPLEX",
        "status": 429,
        "limit": "answers",
        "max": 4 * LARGE,
    }
    assert first.share is not None
    first.share.release()
    second.charge(1)
    assert second.share is not None
    second.share.release()
    first.share.release()
    del other  # nobody has sent it
    assert vars(outstanding)["_bytes"] == {}
