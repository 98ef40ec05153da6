"""/metrics in the Prometheus text format: only counts and times, never names."""

import time
from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector
from starlette.responses import Response

from daos.parts import Parts
from db.models import RunStatus
from resolvers import queue_metrics
from resolvers.queue_metrics import Figures

ENDED_INTERVAL = 60.0  # seconds between counts of the finished runs, which read all of them


class Metrics(Collector):
    """Collects the metrics that are read from the database at each scrape, and those of this process."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._queue: Figures | None = None
        self._ended: Mapping[RunStatus, int] = {}
        self._next_count = 0.0  # on the monotonic clock
        self._registry = CollectorRegistry()
        self._registry.register(self)
        self._registry.register(parts.start_latency)

    async def response(self) -> Response:
        """Return the current metrics, without those of the database if it cannot be read."""
        self._queue = await queue_metrics.of_queue(self._parts.db, self._parts.engine)
        if self._queue is not None and time.monotonic() >= self._next_count:
            self._ended = await queue_metrics.of_ended(self._parts.db) or self._ended
            self._next_count = time.monotonic() + ENDED_INTERVAL
        return Response(generate_latest(self._registry), media_type=CONTENT_TYPE_LATEST)

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily(
            "daos_database_up", "Whether the database could be read for this scrape.", int(self._queue is not None)
        )
        if self._queue is not None:
            yield from _of_database(self._queue, self._ended)
        yield from _of_process(self._parts)


def _of_database(queue: Figures, ended: Mapping[RunStatus, int]) -> Iterator[Metric]:
    counts = {status.lower(): count for status, count in {**queue.runs, **ended}.items()}
    yield _gauges("daos_runs", "Runs by status.", "status", counts)
    yield GaugeMetricFamily(
        "daos_capacity_runs", "Maximum number of runs at the same time on all workers.", queue.capacity
    )
    yield GaugeMetricFamily(
        "daos_queue_age_seconds", "Age of the oldest queued run whose host has free capacity.", queue.age
    )


def _of_process(parts: Parts) -> Iterator[Metric]:
    plays = CounterMetricFamily("daos_plays", "Plays by way, warm or cold.", labels=["way"])
    for way, count in parts.plays.items():
        plays.add_metric([way], count)
    yield plays
    yield _gauges("daos_subscribers", "Subscribers by what they are subscribed to.", "to", parts.broadcast.subscribers)
    lags = {"queue": parts.engine.lag, "news": None if parts.wire is None else parts.wire.lag}
    known = {part: lag for part, lag in lags.items() if lag is not None}
    yield _gauges(
        "daos_engine_lag_seconds", "Seconds since the engine last reached the database, by part.", "part", known
    )


def _gauges(name: str, what: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(name, what, labels=[label])
    for value, measured in values.items():
        family.add_metric([value], measured)
    return family
