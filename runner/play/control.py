"""The orders that a play process receives on its stdin: one JSON object a line.

{"deadline": seconds}   moves the deadline, a time on `clock`; null removes it.  Any other line may also contain it
any other               an order; its meaning is defined by the reader

The end of stdin means that the server has died.  The deadline is for a server that is alive but frozen or cut off: it
keeps its pipes open, neither reads nor writes, and another server may hold its runs by then.
"""

import json
import os
import select
import time
from collections import deque
from typing import Any

CHUNK = 64 * 1024  # bytes
LONGEST_WAIT = 1.0  # seconds; the deadline includes the time that the machine is suspended, `select` does not


def clock() -> float:
    """Return the seconds since the machine's boot, including suspension: the same for all its processes."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Orders:
    """Reads orders from `descriptor`, which has no other reader.  For one thread at a time."""

    def __init__(self, descriptor: int, deadline: float | None = None) -> None:
        """Read from `descriptor`; without a `deadline`, there is none until a line sets one."""
        self._descriptor = descriptor
        self._deadline = deadline
        self._orders: deque[dict[str, Any]] = deque()
        self._rest = b""  # an incomplete line
        self._is_closed = False

    def first(self) -> dict[str, Any] | None:
        """Wait for the first order, regardless of the deadline, and return it; None if stdin ends first."""
        while not self._orders and not self._is_closed:
            self._read(None)
        return self._orders.popleft() if self._orders else None

    def next(self) -> dict[str, Any] | None:
        """Wait for the next order and return it; None when the play must end without one, see `is_over`."""
        wait: float | None = 0
        while not self._orders:
            self._read(wait)
            if not self._orders and self.is_over():
                return None
            wait = None if self._deadline is None else min(self._deadline - clock(), LONGEST_WAIT)
        return self._orders.popleft()

    def is_over(self) -> bool:
        """Whether stdin has ended, or the deadline has passed and no line that has arrived by now moves it."""
        self._read(0)
        return self._is_closed or (self._deadline is not None and clock() >= self._deadline)

    def _read(self, seconds: float | None) -> None:
        """Read what arrives within `seconds`; None waits without a limit."""
        ready, _, _ = select.select([self._descriptor], [], [], seconds if seconds is None else max(seconds, 0))
        if not ready:
            return
        chunk = os.read(self._descriptor, CHUNK)
        self._is_closed = not chunk
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            message = json.loads(line)
            if "deadline" in message:
                self._deadline = message["deadline"]
            if message.keys() != {"deadline"}:
                self._orders.append(message)
