"""The interface of an engine, for the code that queues runs and for the code that starts the engine."""

from typing import Protocol
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from db.models import Run
from runner.store import Capacity


class Engine(Protocol):
    """Ensures that every queued run is played once."""

    async def capacity(self, session: AsyncSession) -> Capacity:
        """Return how many runs are played at the same time."""
        ...

    async def enqueue(self, session: AsyncSession, run: Run) -> None:
        """Queue the run, in the transaction that creates it."""
        ...

    def wake(self) -> None:
        """Notify the engine that a transaction with queued runs was committed."""
        ...

    def cancel(self, run_id: UUID) -> None:
        """Notify the engine that a cancel of the run was committed."""
        ...


class ServingEngine(Engine, Protocol):
    """An engine, as the code that starts it sees it."""

    @property
    def ready(self) -> bool:
        """Whether runs are being claimed from the queue."""
        ...

    @property
    def lag(self) -> float | None:
        """Seconds since the engine last read the queue or renewed its lease; None if it plays no runs."""
        ...

    async def serve(self) -> None:
        """Play runs; returns after `drain`."""
        ...

    async def drain(self, grace: float) -> None:
        """Begin no more runs; give those being played `grace` seconds, then interrupt them and wait for their end."""
        ...
