"""An event that many get is made once for those who ask the same, and each gets what he has asked for."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest

from db.models import Run, RunStatus
from tests import factories
from tests.support.api import TIMEOUT, Api

WHOLE = "subscription ($id: ID!, $no: Boolean = false) { runLog(runId: $id) { complete entries { sequence message"
WHOLE += " phase @skip(if: $no) } } }"
PART = "subscription ($id: ID!) { log: runLog(runId: $id) { entries { number: sequence } } }"


@pytest.fixture
async def run(api: Api) -> Run:
    """A run that is being played, with one entry in its log."""
    run = await factories.run(api.db, to=RunStatus.RUNNING)
    await factories.log(api.db, run, 1)
    return run


async def follow(api: Api, run: Run, *asked: tuple[str, dict[str, object]]) -> list[dict[str, Any]]:
    """The data of the second event of each, which all of them wait for together."""
    async with AsyncExitStack() as stack:
        followers = [
            await stack.enter_async_context(api.subscribe(document, id=str(run.id), **variables))
            for document, variables in asked
        ]
        async with asyncio.timeout(TIMEOUT):
            for events in followers:
                await anext(events)
            waiting = [asyncio.ensure_future(anext(events)) for events in followers]
            await factories.log(api.db, run, 2, first=2)
            api.context.broadcast.notify(run.id)
            return await asyncio.gather(*waiting)


async def test_who_asks_the_same_shares_the_answer(api: Api, run: Run) -> None:
    one, other = await follow(api, run, (WHOLE, {}), (WHOLE, {}))
    assert one is other
    assert [entry["message"] for entry in one["runLog"]["entries"]] == ["line 2", "line 3"]


async def test_who_asks_something_else_gets_that(api: Api, run: Run) -> None:
    whole, without, part = await follow(api, run, (WHOLE, {}), (WHOLE, {"no": True}), (PART, {}))
    assert whole["runLog"]["entries"][0] == {"sequence": 2, "message": "line 2", "phase": "UP"}
    assert without["runLog"]["entries"][0] == {"sequence": 2, "message": "line 2"}
    assert part == {"log": {"entries": [{"number": 2}, {"number": 3}]}}


async def test_the_next_event_is_another_one(api: Api, run: Run) -> None:
    async with api.subscribe(WHOLE, id=str(run.id)) as events, asyncio.timeout(TIMEOUT):
        seen = [await anext(events)]
        for sequence in (2, 3):
            await factories.log(api.db, run, 1, first=sequence)
            api.context.broadcast.notify(run.id)
            seen.append(await anext(events))
    assert [entry["sequence"] for event in seen for entry in event["runLog"]["entries"]] == [1, 2, 3]
