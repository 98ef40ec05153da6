"""What an engine is, for those who queue runs and for who starts it."""

from typing import Protocol
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from db.models import Run
from runner.store import Capacity


class Engine(Protocol):
    """Sees that every queued run is played once."""

    async def capacity(self, session: AsyncSession) -> Capacity:
        """How many runs are played at the same time."""
        ...

    async def enqueue(self, session: AsyncSession, run: Run) -> None:
        """Queue the run, in the transaction that creates it."""
        ...

    def wake(self) -> None:
        """Say that a transaction with queued runs was committed."""
        ...

    def cancel(self, run_id: UUID) -> None:
        """Say that a cancel of the run was committed."""
        ...


class ServingEngine(Engine, Protocol):
    """An engine from the side of who starts it."""

    @property
    def ready(self) -> bool:
        """Whether runs are being taken from the queue."""
        ...

    @property
    def lag(self) -> float | None:
        """Seconds since it last saw to the queue, or kept its right to; None where it plays nothing."""
        ...

    async def serve(self) -> None:
        """Do its work; returns after `drain`."""
        ...

    async def drain(self, grace: float) -> None:
        """Begin no more runs; give those being played `grace` seconds, then interrupt them and wait for their end."""
        ...
