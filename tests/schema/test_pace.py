"""The event loop serves others between slices."""

import asyncio
import time

from schema.pace import Pace


def hold(seconds: float) -> None:
    """Hold the event loop, as executing an operation does."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


async def test_others_are_served_between_the_slices_of_many_operations() -> None:
    pace, order = Pace(0.001), []

    async def operation(name: str) -> None:
        await pace.turn()
        hold(0.002)  # more than a slice
        order.append(name)

    async def other() -> None:
        for name in "xy":
            order.append(name)
            await asyncio.sleep(0)

    await asyncio.gather(operation("a"), operation("b"), operation("c"), other())
    assert order == ["a", "x", "b", "y", "c"]


async def test_a_slice_is_over_after_its_time_and_begins_when_others_were_served() -> None:
    pace = Pace(0.001)
    assert not pace.is_over
    hold(0.002)
    assert pace.is_over
    await pace.turn()
    assert not pace.is_over


def test_a_slice_of_a_loop_that_has_ended_holds_up_no_other() -> None:
    pace = Pace(0.001)

    async def leave() -> None:
        assert not pace.is_over
        hold(0.002)
        assert pace.is_over

    asyncio.run(leave())
    pace._began = 0.0  # as if the loop had ended before it came to its next turn

    async def come() -> None:
        async with asyncio.timeout(5):
            await pace.turn()

    asyncio.run(come())
