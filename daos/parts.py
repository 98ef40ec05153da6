"""The parts of a daos process that the HTTP application uses."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from prometheus_client import Histogram

from db import migrations
from db.broadcast import Broadcast
from db.database import Database
from db.notify import Wire
from runner.engine.base import ServingEngine

BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)  # seconds


def make_start_latency() -> Histogram:
    """Create the histogram of the time that runs waited until this process claimed them."""
    return Histogram(
        "daos_start_latency_seconds",
        "Seconds from the acceptance of a run until this process claimed it.",
        buckets=BUCKETS,
        registry=None,
    )


@dataclass(frozen=True)
class Parts:
    """The parts that run alongside the application."""

    db: Database
    broadcast: Broadcast
    engine: ServingEngine
    wire: Wire | None = None  # None with SQLite: there are no other servers
    plays: Mapping[str, int] = field(default_factory=dict)  # the number of warm and of cold plays
    start_latency: Histogram = field(default_factory=make_start_latency)

    async def problems(self) -> list[str]:
        """Return the reasons why the process is not ready, empty if it is."""
        found = []
        if not self.engine.ready:
            found.append("no runs are claimed from the queue")
        if self.wire is not None and not self.wire.hears:
            found.append("no notifications are received from other servers")
        if not await migrations.is_usable(self.db):
            found.append("the database cannot be read, or its schema is of an older version")
        elif not await self.db.has_room():
            found.append("the storage of the database is full")
        return found
