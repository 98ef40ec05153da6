"""Waiting for a database that is unavailable."""

import asyncio
from collections.abc import Iterator

import pytest
from sqlalchemy.exc import (
    IntegrityError,
    InterfaceError,
    InternalError,
    NotSupportedError,
    OperationalError,
    ProgrammingError,
)
from sqlalchemy.exc import TimeoutError as NoConnection

from db import patience
from db.patience import Unavailable, patiently

ERRORS = [
    OperationalError("SELECT 1", None, Exception("no connection")),
    InterfaceError("SELECT 1", None, Exception("connection lost")),
    InternalError("UPDATE", None, Exception("read-only transaction")),
    ProgrammingError("SELECT 1", None, Exception("relation runs does not exist")),
    NotSupportedError("SELECT 1", None, Exception("cached plan must not change result type")),
    NoConnection("the pool is exhausted"),
    Unavailable("the queue"),
]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "RETRY_INTERVAL", 0.0)


def answering(*answers: Exception | int) -> Iterator[Exception | int]:
    return iter(answers)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
async def test_what_is_unavailable_is_tried_again_and_logged_once(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    answers = answering(error, error, 5)

    async def attempt() -> int:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert await patiently(attempt, "the end of run 1 cannot be written") == 5
    [record] = caplog.records
    assert record.getMessage().startswith("the end of run 1 cannot be written, trying again: ")


async def test_other_errors_pass_through() -> None:
    async def attempt() -> int:
        raise IntegrityError("INSERT", None, Exception("taken"))

    with pytest.raises(IntegrityError):
        await patiently(attempt, "a row cannot be written")


async def test_it_ends_when_it_is_cancelled() -> None:
    async def attempt() -> int:
        raise ERRORS[0]

    task = asyncio.create_task(patiently(attempt, "nothing can be read"))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
