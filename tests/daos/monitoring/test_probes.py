"""/readyz: who is ready, and what is missing where somebody is not."""

from pathlib import Path

from daos.parts import Parts
from db.database import Database, sqlite_url
from db.notify import Wire
from runner.engine.embedded import EmbeddedEngine
from tests import factories
from tests.support.full_disk import fill, full
from tests.support.probing import NOWHERE, asking, make_parts


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
        "not ready: no runs are claimed from the queue; no notifications are received from other servers; "
        "the database cannot be read, or its schema is of an older version\n"
    )
