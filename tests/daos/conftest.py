"""A server with the usual settings."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from db.database import sqlite_url
from tests import factories
from tests.support.serving import Served, serving


@pytest.fixture(scope="module")
async def served(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    """A server over SQLite that the tests of a module share: starting and stopping one takes a third of a second."""
    directory = tmp_path_factory.mktemp("served")
    path = shutil.copy(sqlite_template, directory / "daos.db")
    async with factories.database(sqlite_url(Path(path))) as db, serving(db, directory) as server:
        yield server
