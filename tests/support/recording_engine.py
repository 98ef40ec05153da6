"""An engine that plays nothing."""

from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from db.models import Run
from runner.store import Capacity


class RecordingEngine:
    """A `runner.engine.base.Engine` that records its calls."""

    def __init__(self) -> None:
        self.enqueued: list[UUID] = []
        self.canceled: list[UUID] = []
        self.wakes = 0
        self.room = Capacity(runs=8, per_host=4)

    async def capacity(self, session: AsyncSession) -> Capacity:
        return self.room

    async def enqueue(self, session: AsyncSession, run: Run) -> None:
        self.enqueued.append(run.id)

    def wake(self) -> None:
        self.wakes += 1

    def cancel(self, run_id: UUID) -> None:
        self.canceled.append(run_id)
