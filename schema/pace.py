"""Lets the event loop serve others while operations are executed and their answers are encoded.

What graphql-core and JSON do with one large answer, or with many at once, would otherwise hold the loop for seconds:
leases would expire, and probes would not be answered.
"""

import asyncio
import time

SLICE = 0.02  # seconds


class Pace:
    """Measures how long operations have held the event loop since it last served others: one for all of a server."""

    def __init__(self, seconds: float = SLICE) -> None:
        self._seconds = seconds
        self._began: float | None = None  # None: nothing has held it since
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def is_over(self) -> bool:
        """Whether it is time to await `turn`; the first question after the loop has served others begins a slice."""
        loop = asyncio.get_running_loop()
        if self._began is None or self._loop is not loop:
            self._began, self._loop = time.perf_counter(), loop
            loop.call_soon(self._reset)  # which it comes to when it has served all who are ready
            return False
        return time.perf_counter() - self._began > self._seconds

    async def turn(self) -> None:
        """Return at once, or after the loop has served others where a slice is over."""
        while self.is_over:  # noqa: ASYNC110 - others are served meanwhile, nothing is waited for
            await asyncio.sleep(0)

    def _reset(self) -> None:
        self._began = None
