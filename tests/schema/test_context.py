"""Loaders, where what they look for has gone meanwhile."""

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from db.engine import Database
from resolvers.errors import NotFound
from schema.context import Loaders
from tests import factories
from tests.support.recording_engine import RecordingEngine


@pytest.mark.parametrize("kind", ["host", "package", "deployment"])
async def test_what_was_deleted_since_it_was_named_is_not_found_and_spoils_no_other(
    sqlite_db: Database, engine: RecordingEngine, kind: str
) -> None:
    make: Any = {"host": factories.host, "package": factories.package, "deployment": factories.deployment}[kind]
    there = await make(sqlite_db)
    loader: Any = getattr(Loaders(sqlite_db, engine), kind)
    keys = (there.id, uuid4())
    found, gone = await asyncio.gather(*map(loader.load, keys), return_exceptions=True)
    assert getattr(found, "id", found) == there.id
    assert isinstance(gone, NotFound)
    assert str(gone).startswith(kind.capitalize())


async def test_what_may_be_missing_is_none(sqlite_db: Database, engine: RecordingEngine) -> None:
    loaders = Loaders(sqlite_db, engine)
    assert await loaders.latest_run.load(uuid4()) is None
    assert await loaders.place.load(uuid4()) is None
    assert await loaders.files.load(uuid4()) == []
    assert await loaders.variables.load(uuid4()) == []
