"""/metrics in Prometheus' text format: how many, never who or what."""

from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.core import CounterMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector
from starlette.responses import Response

from db.engine import Database
from db.models import RunStatus
from resolvers import runs


class _Plays(Collector):
    """How many plays went which way since the server began."""

    def __init__(self, plays: Mapping[str, int]) -> None:
        self._plays = plays

    def collect(self) -> Iterator[CounterMetricFamily]:
        family = CounterMetricFamily("daos_plays", "Plays by the way they went, warm or cold.", labels=["way"])
        for way, count in self._plays.items():
            family.add_metric([way], count)
        yield family


class Metrics:
    """Gauges that are read from the database when they are asked for, and how many plays went which way."""

    def __init__(self, db: Database, plays: Mapping[str, int]) -> None:
        self._db = db
        self._registry = CollectorRegistry()
        self._runs = Gauge("daos_runs", "Runs by status.", ["status"], registry=self._registry)
        self._registry.register(_Plays(plays))

    async def response(self) -> Response:
        """The metrics now."""
        counts = await runs.count_by_status(self._db)
        for status in RunStatus:
            self._runs.labels(status=status.lower()).set(counts.get(status, 0))
        return Response(generate_latest(self._registry), media_type=CONTENT_TYPE_LATEST)
