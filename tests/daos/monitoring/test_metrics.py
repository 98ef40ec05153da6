"""/metrics: what it tells, and that the documentation knows each number."""

from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from daos.parts import Parts
from db.database import Database
from db.models import RunStatus
from tests import factories
from tests.support.probing import NOWHERE, asking, make_parts

OPERATIONS = Path(__file__).parents[3] / "docs" / "operations.md"


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
