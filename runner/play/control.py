"""What a playing process is told on its stdin: one JSON object a line.

{"deadline": seconds}   moves the deadline, a time on `clock`; null takes it away.  Any other line may carry it too
any other               a word; what it means is its reader's business

The end of stdin tells that the server has died.  The deadline is for a server that lives and can do nothing, frozen or
cut off: it holds its pipes open, neither reads nor writes, and another one may have its runs by then.
"""

import json
import os
import select
import time
from collections import deque
from typing import Any

CHUNK = 64 * 1024  # bytes
LONGEST_WAIT = 1.0  # seconds; `select` does not count the time that the machine sleeps, the deadline does


def clock() -> float:
    """Seconds since the machine's boot, with those that it slept: the same for all processes on it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Orders:
    """The lines on `descriptor`, which nobody else reads.  For one thread at a time."""

    def __init__(self, descriptor: int, deadline: float | None = None) -> None:
        """Without a `deadline` there is none until a line tells one."""
        self._descriptor = descriptor
        self._deadline = deadline
        self._words: deque[dict[str, Any]] = deque()
        self._rest = b""  # a line whose end has not come yet
        self._is_closed = False

    def first(self) -> dict[str, Any] | None:
        """Wait for the first word, whatever the deadline; None where stdin ends before."""
        while not self._words and not self._is_closed:
            self._take(None)
        return self._words.popleft() if self._words else None

    def next(self) -> dict[str, Any] | None:
        """Wait for the next word; None when the play has to end without one, see `is_over`."""
        wait: float | None = 0
        while not self._words:
            self._take(wait)
            if not self._words and self.is_over():
                return None
            wait = None if self._deadline is None else min(self._deadline - clock(), LONGEST_WAIT)
        return self._words.popleft()

    def is_over(self) -> bool:
        """Whether stdin has ended, or the deadline has passed and nothing that has come by now moves it."""
        self._take(0)
        return self._is_closed or (self._deadline is not None and clock() >= self._deadline)

    def _take(self, seconds: float | None) -> None:
        """Take in what comes within `seconds`, None being any time."""
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
                self._words.append(message)
