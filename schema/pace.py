"""Yields to the event loop while operations are executed and their answers are encoded.

Otherwise graphql-core and the JSON encoder would block the loop for seconds with one large answer, or with many at
once: leases would expire, and probes would not be answered.
"""

import asyncio
import time

SLICE = 0.02  # seconds


class Pace:
    """Measures how long operations have blocked the event loop since it last ran other tasks; one per server."""

    def __init__(self, seconds: float = SLICE) -> None:
        self._seconds = seconds
        self._began: float | None = None  # None: nothing has blocked it since
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def is_over(self) -> bool:
        """Whether it is time to await `turn`; the first call after the loop has run other tasks begins a slice."""
        loop = asyncio.get_running_loop()
        if self._began is None or self._loop is not loop:
            self._began, self._loop = time.perf_counter(), loop
            loop.call_soon(self._reset)  # which runs after all callbacks that are ready
            return False
        return time.perf_counter() - self._began > self._seconds

    async def turn(self) -> None:
        """Return at once, or, if the slice is over, after the loop has run other tasks."""
        while self.is_over:  # noqa: ASYNC110 - it only yields to other tasks, there is no event to wait for
            await asyncio.sleep(0)

    def _reset(self) -> None:
        self._began = None
