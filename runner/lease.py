"""A worker's right to hold runs, where several workers share a database.

A worker says at every beat that it is there; the database's clock says when.  It holds runs for `seconds` after a beat
that reached the database, counted here from before the beat was sent, on a clock that counts sleep too.  When that time
is over, its plays end by themselves, even where the worker itself is frozen.  Others give it up only after `silence`,
which leaves a play the time to end: no run is ever played twice at the same time.
"""

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable
from uuid import uuid4

from sqlalchemy import delete, insert, update

from db import status
from db.database import Database
from db.models import Worker
from db.patience import UNAVAILABLE

logger = logging.getLogger(__name__)

BEATS = 4  # in a lease: one that is lost, or late, ends nothing
SILENCE = 1.5  # leases; in the half one a play has the time to end


class LeaseLost(Exception):
    """The worker was silent for too long; it holds nothing any more."""


def boottime() -> float:
    """Seconds on a clock that no one sets, and that goes on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Lease:
    """The lease of one incarnation of a worker: once lost, it does not come back."""

    def __init__(self, db: Database, node: str, max_runs: int, seconds: float) -> None:
        """`node` is what no two processes can be at the same time: a data directory that is locked."""
        self._db = db
        self._node = node
        self._max_runs = max_runs
        self.seconds = seconds
        self.silence = SILENCE * seconds
        self.worker = str(uuid4())
        self.deadline = 0.0  # on `boottime`
        self._beaten = boottime()

    @property
    def is_over(self) -> bool:
        return boottime() >= self.deadline

    @property
    def age(self) -> float:
        """Seconds since the last beat that has reached the database."""
        return boottime() - self._beaten

    async def begin(self) -> None:
        """Register the worker.  Raises: errors of `UNAVAILABLE`."""
        before = boottime()
        name = f"{socket.gethostname()}/{os.getpid()}"
        times = {"started_at": status.clock(), "seen_at": status.clock()}
        row = insert(Worker).values(id=self.worker, node=self._node, name=name, max_runs=self._max_runs, **times)
        async with self._db.write() as session:
            await session.execute(row)
        self._extend(before)

    async def keep(self, extend: Callable[[float], None]) -> None:
        """Beat, and tell `extend` the new deadline each time.  Raises: LeaseLost."""
        watch = asyncio.create_task(self._watch(), name="end of the lease")
        beat = asyncio.create_task(self._beat(extend), name="beat of the lease")
        try:
            await asyncio.wait({watch, beat}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            watch.cancel()
            beat.cancel()
        if beat.done() and not beat.cancelled() and (error := beat.exception()) is not None:
            raise error
        raise LeaseLost("no beat has reached the database in time")

    async def end(self) -> None:
        """Give the lease back: what this worker still holds may be taken at once.  Raises: errors of `UNAVAILABLE`."""
        self.deadline = 0.0
        async with self._db.write() as session:
            await session.execute(delete(Worker).where(Worker.id == self.worker))

    async def _watch(self) -> None:
        """Return when the lease is over.  A statement that hangs must not keep anybody from noticing."""
        while (left := self.deadline - boottime()) > 0:  # noqa: ASYNC110 - a beat moves it meanwhile
            await asyncio.sleep(left)

    async def _beat(self, extend: Callable[[float], None]) -> None:
        while True:
            await asyncio.sleep(self.seconds / BEATS)
            before = boottime()
            try:
                async with self._db.write() as session:
                    statement = update(Worker).where(Worker.id == self.worker).values(seen_at=status.clock())
                    seen = (await session.execute(statement.returning(Worker.id))).one_or_none()
            except UNAVAILABLE as error:
                logger.warning("the lease cannot be renewed: %s", error)
                continue
            if seen is None:
                raise LeaseLost("the other workers have given this one up")
            self._extend(before)
            extend(self.deadline)

    def _extend(self, beaten: float) -> None:
        self._beaten = beaten
        self.deadline = beaten + self.seconds
