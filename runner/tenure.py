"""A worker's right to hold runs, which its engine grants."""

from collections.abc import Awaitable, Callable
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from db import status
from db.models import Run
from runner.lease import Lease

MAX_CLAIMS = 5  # of one run; it may be what kills its workers

# Queues a run for any worker, in the transaction that gives it up.
Requeue = Callable[[AsyncSession, Run], Awaitable[None]]


class Tenure:
    """The right of one worker, under the name `worker`, to claim runs and hold them.

    With a `lease`, it lasts as long as the lease; without one, as in an embedded server, until the process ends.
    """

    def __init__(self, worker: str, lease: Lease | None = None, requeue: Requeue | None = None) -> None:
        """Create the right; `requeue` is None if no other worker could play a run that this one gives up."""
        self.worker = worker
        self._lease = lease
        self._requeue = requeue

    @property
    def deadline(self) -> float | None:
        """When plays must end by themselves, in seconds on `runner.lease.boottime`; None: never."""
        return None if self._lease is None else self._lease.deadline

    @property
    def is_over(self) -> bool:
        """Whether another worker may hold this one's runs by now."""
        return self._lease is not None and self._lease.is_over

    async def claim(self, session: AsyncSession, run_id: UUID) -> Run | None:
        """Move the run from QUEUED to RUNNING and return it; None if it is not queued, or the lease is over."""
        return await status.claim(session, run_id, self.worker, None if self._lease is None else self._lease.seconds)

    async def take_over(self, session: AsyncSession, run_id: UUID) -> Run | None:
        """Take over a run that a killed server was playing and return it; None if it is not running."""
        return await status.take_over(session, run_id, self.worker)

    def may_requeue(self, run: Run) -> bool:
        """Whether the run can be played again, by any worker."""
        return self._requeue is not None and run.epoch < MAX_CLAIMS

    async def requeue(self, session: AsyncSession, run: Run) -> bool:
        """Queue the run again; False if this worker no longer holds it, or a user has canceled it."""
        assert self._requeue is not None
        is_queued = await status.hand_back(session, run.id, run.epoch)
        if is_queued:
            await self._requeue(session, run)
        return is_queued
