"""Starts plays: as forks of the warm process where that is possible, otherwise as separate programs."""

import logging
from collections import Counter
from typing import Protocol

from runner.play.channel import Refused
from runner.play.play import Process
from runner.play.request import PlayRequest

logger = logging.getLogger(__name__)


class Starter(Protocol):
    """A function that starts a play."""

    async def __call__(self, request: PlayRequest, /) -> Process:
        """Start the play.  Raises: Refused, if it must be started another way; OSError."""
        ...


class Launcher:
    """Starts plays with `warm`, and with `cold` if `warm` refuses."""

    def __init__(self, warm: Starter | None = None, cold: Starter = Process.start) -> None:
        """Create a launcher; without `warm`, every play is started cold."""
        self._warm = warm
        self._cold = cold
        self.plays: Counter[str] = Counter(warm=0, cold=0)  # number of plays that were started each way

    async def start(self, request: PlayRequest) -> Process:
        """Start a play.  Raises: OSError."""
        if self._warm is not None:
            try:
                process = await self._warm(request)
            except Refused as refused:
                logger.info("%s is started cold: %s", request.cookie, refused)
            else:
                self.plays["warm"] += 1
                return process
        process = await self._cold(request)
        self.plays["cold"] += 1
        return process
