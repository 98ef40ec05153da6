"""The warm process, started once for all tests that only use it."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from runner import leftovers
from runner.keeper import Keeper
from tests.runner import plays


@pytest.fixture
def cookie() -> Iterator[str]:
    cookie = f"test-{uuid4()}"
    yield cookie
    leftovers.end(cookie, 0)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A run's directory with one local host."""
    return plays.make_directory(tmp_path / "run")


@pytest.fixture(scope="session")
async def keeper(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Keeper]:
    """A keeper whose warm process must not be killed: it is for the whole session."""
    async with plays.kept(tmp_path_factory.mktemp("kept"), f"test-{uuid4()}") as keeper:
        yield keeper
