"""Loaders, where what they look for has gone meanwhile."""

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from db.database import Database
from resolvers.errors import NotFound
from schema.answer import AnswerTooLarge, Budget
from schema.context import FileOfSize, Loaders
from tests import factories
from tests.support.recording_engine import RecordingEngine


@pytest.mark.parametrize("kind", ["host", "package", "deployment"])
async def test_what_was_deleted_since_it_was_named_is_not_found_and_spoils_no_other(
    sqlite_db: Database, engine: RecordingEngine, kind: str
) -> None:
    make: Any = {"host": factories.host, "package": factories.package, "deployment": factories.deployment}[kind]
    there = await make(sqlite_db)
    loader: Any = getattr(Loaders(sqlite_db, engine, Budget(1000)), kind)
    keys = (there.id, uuid4())
    found, gone = await asyncio.gather(*map(loader.load, keys), return_exceptions=True)
    assert getattr(found, "id", found) == there.id
    assert isinstance(gone, NotFound)
    assert str(gone).startswith(kind.capitalize())


async def test_what_may_be_missing_is_none(sqlite_db: Database, engine: RecordingEngine) -> None:
    loaders = Loaders(sqlite_db, engine, Budget(1000))
    assert await loaders.latest_run.load(uuid4()) is None
    assert await loaders.place.load(uuid4()) is None
    assert await loaders.files.load(uuid4()) == []
    assert await loaders.variables.load(uuid4()) == []


@pytest.mark.parametrize("column", ["content", "compose file", "variables"])
async def test_what_is_too_large_is_not_read(db: Database, engine: RecordingEngine, column: str) -> None:
    package = await factories.package(db, {"large": "x" * 600}, compose_file="services: {}\n#" + "x" * 600)
    deployment = await factories.deployment(db, of=package, variables={"LARGE": "x" * 600}, secrets={"SECRET": "x"})

    async def load(loaders: Loaders) -> object:
        if column == "content":
            return (await loaders.contents.load(FileOfSize((package.id, "large"), 600))).text
        if column == "compose file":
            return await loaders.compose_file.load(package.id)
        return [variable.value for variable in await loaders.variables.load(deployment.id)]

    reading = Budget(1000)
    loaders = Loaders(db, engine, reading)
    first = await load(loaders)
    assert "x" * 600 in str(first)
    spent = reading.spent
    assert spent >= 600
    assert await load(loaders) == first  # it is shared, and read once
    assert reading.spent == spent
    with pytest.raises(AnswerTooLarge):
        await load(Loaders(db, engine, Budget(500)))


async def test_a_file_that_is_gone_is_not_found(sqlite_db: Database, engine: RecordingEngine) -> None:
    with pytest.raises(NotFound):
        await Loaders(sqlite_db, engine, Budget(1000)).contents.load(FileOfSize((uuid4(), "gone"), 5))
