"""What keeps a process from its work, in the words of /readyz."""

from pathlib import Path

from prometheus_client import Histogram

from daos.parts import Parts, make_start_latency
from db.database import Database, sqlite_url
from runner.engine.embedded import EmbeddedEngine
from tests import factories
from tests.support.full_disk import fill, full
from tests.support.probing import make_parts


def not_ready(parts: Parts) -> Parts:
    assert isinstance(parts.engine, EmbeddedEngine)
    parts.engine.ready = False
    return parts


async def test_a_process_with_all_that_it_needs_has_no_problem(db: Database, tmp_path: Path) -> None:
    assert await make_parts(db, tmp_path).problems() == []


async def test_an_engine_that_takes_no_runs_is_one(sqlite_db: Database, tmp_path: Path) -> None:
    assert await not_ready(make_parts(sqlite_db, tmp_path)).problems() == ["no runs are claimed from the queue"]


async def test_a_database_without_tables_is_one_and_its_room_is_not_asked_for(tmp_path: Path) -> None:
    async with factories.database(sqlite_url(tmp_path / "empty.db")) as db:
        found = await make_parts(db, tmp_path).problems()
    assert found == ["the database cannot be read, or its schema is of an older version"]


async def test_a_full_storage_is_one_until_there_is_room_again(db: Database, tmp_path: Path) -> None:
    parts = make_parts(db, tmp_path)
    async with full(db):
        await fill(db)
        assert await parts.problems() == ["the storage of the database is full"]


def test_each_process_has_a_histogram_of_its_own() -> None:
    first, second = make_start_latency(), make_start_latency()
    first.observe(1)
    assert [_count(each) for each in (first, second)] == [1, 0]


def _count(histogram: Histogram) -> float:
    [family] = histogram.collect()
    return sum(sample.value for sample in family.samples if sample.name.endswith("_count"))
