"""/metrics in Prometheus' text format: how many, never who or what."""

from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.responses import Response

from db.engine import Database
from db.models import RunStatus
from resolvers import runs


class Metrics:
    """Gauges that are read from the database when they are asked for."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._registry = CollectorRegistry()
        self._runs = Gauge("daos_runs", "Runs by status.", ["status"], registry=self._registry)

    async def response(self) -> Response:
        """The metrics now."""
        counts = await runs.count_by_status(self._db)
        for status in RunStatus:
            self._runs.labels(status=status.lower()).set(counts.get(status, 0))
        return Response(generate_latest(self._registry), media_type=CONTENT_TYPE_LATEST)
