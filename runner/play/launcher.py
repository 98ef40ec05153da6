"""Starts plays: on warm Ansible where that is possible, else as programs of their own."""

import logging
from collections import Counter
from typing import Protocol

from runner.play.channel import Refused
from runner.play.play import Process
from runner.play.request import PlayRequest

logger = logging.getLogger(__name__)


class Starter(Protocol):
    """One way to start a play."""

    async def __call__(self, request: PlayRequest, /) -> Process:
        """Start it.  Raises: Refused, where another way has to be taken; OSError."""
        ...


class Launcher:
    """Starts plays the `warm` way, and the `cold` way where that is refused."""

    def __init__(self, warm: Starter | None = None, cold: Starter = Process.start) -> None:
        """Without `warm`, every play is started the cold way."""
        self._warm = warm
        self._cold = cold
        self.plays: Counter[str] = Counter(warm=0, cold=0)  # how many were started which way

    async def start(self, request: PlayRequest) -> Process:
        """Start a play.  Raises: OSError."""
        if self._warm is not None:
            try:
                process = await self._warm(request)
            except Refused as refused:
                logger.info("%s is played the cold way: %s", request.cookie, refused)
            else:
                self.plays["warm"] += 1
                return process
        process = await self._cold(request)
        self.plays["cold"] += 1
        return process
