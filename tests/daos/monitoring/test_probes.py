"""/readyz and /metrics: what they say, and that the documentation knows each number."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette

from daos.monitoring import probes
from daos.parts import Parts
from db.broadcast import Broadcast
from db.database import Database, sqlite_url
from db.models import RunStatus
from db.notify import Wire
from runner.engine.embedded import EmbeddedEngine
from runner.worker import Worker, WorkerSettings
from tests import factories
from tests.support.full_disk import fill, full

OPERATIONS = Path(__file__).parents[3] / "docs" / "operations.md"
NOWHERE = "postgresql://daos@127.0.0.1:1/daos"


def make_parts(db: Database, directory: Path) -> Parts:
    """Parts whose engine takes runs, as far as it says."""
    broadcast = Broadcast()
    engine = EmbeddedEngine(db, Worker(db, broadcast, WorkerSettings(directory, "test")), 8)
    engine.ready = True
    return Parts(db, broadcast, engine, plays={"warm": 2, "cold": 0})


@asynccontextmanager
async def asking(parts: Parts) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(Starlette(routes=probes.routes(parts)))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


async def scrape(parts: Parts) -> dict[str, float]:
    """Each sample as Prometheus writes it, with its value."""
    async with asking(parts) as client:
        answer = await client.get("/metrics")
    assert answer.status_code == 200
    return {
        sample.name + ("".join(f"{{{name}={value}}}" for name, value in sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


async def test_metrics_tell_of_the_queue_and_of_the_process(db: Database, tmp_path: Path) -> None:
    for to in (RunStatus.QUEUED, RunStatus.RUNNING, RunStatus.FAILED):
        await factories.run(db, to=to)
    parts = make_parts(db, tmp_path)
    parts.start_latency.observe(0.3)
    with parts.broadcast.subscribed("log"):
        samples = await scrape(parts)
    assert 0 <= samples.pop("daos_queue_age_seconds") < 10
    assert 0 <= samples.pop("daos_engine_lag_seconds{part=queue}") < 10
    expected = {
        "daos_database_up": 1,
        "daos_runs{status=queued}": 1,
        "daos_runs{status=running}": 1,
        "daos_runs{status=failed}": 1,
        "daos_runs{status=canceled}": 0,
        "daos_capacity_runs": 8,
        "daos_plays_total{way=warm}": 2,
        "daos_subscribers{to=log}": 1,
        "daos_subscribers{to=deployment}": 0,
        "daos_start_latency_seconds_bucket{le=0.25}": 0,
        "daos_start_latency_seconds_bucket{le=0.5}": 1,
    }
    assert samples.items() >= expected.items()


async def test_ended_runs_are_not_counted_at_each_look(db: Database, tmp_path: Path) -> None:
    async with asking(make_parts(db, tmp_path)) as client:
        for _ in range(2):
            await factories.run(db, to=RunStatus.FAILED)
            await factories.run(db)
            answer = await client.get("/metrics")
    assert 'daos_runs{status="failed"} 1.0' in answer.text
    assert 'daos_runs{status="queued"} 2.0' in answer.text


async def test_every_metric_is_in_the_documentation(sqlite_db: Database, tmp_path: Path) -> None:
    parts = make_parts(sqlite_db, tmp_path)
    documented = OPERATIONS.read_text()
    async with asking(parts) as client:
        text = (await client.get("/metrics")).text
    families = list(text_string_to_metric_families(text))
    totals = {family.name + ("_total" if family.type == "counter" else "") for family in families}
    assert len(totals) >= 8
    names = {name for name in totals if not name.endswith("_created")}
    assert [name for name in sorted(names) if f"| `{name}" not in documented] == []


async def test_without_the_database_metrics_tell_of_the_process_alone(tmp_path: Path) -> None:
    async with factories.database(NOWHERE) as db:
        samples = await scrape(make_parts(db, tmp_path))
    assert samples["daos_database_up"] == 0
    assert "daos_queue_age_seconds" not in samples
    assert samples["daos_subscribers{to=log}"] == 0


async def test_ready_is_who_plays_hears_and_has_tables(sqlite_db: Database, tmp_path: Path) -> None:
    async with asking(make_parts(sqlite_db, tmp_path)) as client:
        assert (await client.get("/readyz")).text == "ready\n"


async def test_who_cannot_write_is_not_ready(sqlite_db: Database, tmp_path: Path) -> None:
    async with full(sqlite_db):
        await fill(sqlite_db)
    async with asking(make_parts(sqlite_db, tmp_path)) as client:
        answer = await client.get("/readyz")
    assert (answer.status_code, answer.text) == (503, "not ready: the storage of the database is full\n")


async def test_who_is_not_ready_says_what_is_missing(tmp_path: Path) -> None:
    async with factories.database(sqlite_url(tmp_path / "empty.db")) as db, factories.database(NOWHERE) as away:
        usual = make_parts(db, tmp_path)
        assert isinstance(usual.engine, EmbeddedEngine)
        usual.engine.ready = False
        wire = Wire(away, usual.broadcast)
        async with asking(Parts(db, usual.broadcast, usual.engine, wire)) as client:
            answer = await client.get("/readyz")
    assert answer.status_code == 503
    assert answer.text == (
        "not ready: no runs are taken from the queue; no news come from other servers; "
        "the database cannot be read, or is of an older version\n"
    )
