"""The warm process, started once for all tests that only use it."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from runner import processes
from runner.play import play
from runner.play.warm import WarmAnsible
from runner.worker import WorkerSettings
from tests.runner import plays
from tests.runner.engines import OK


@pytest.fixture
def cookie() -> Iterator[str]:
    cookie = f"test-{uuid4()}"
    yield cookie
    processes.end(cookie, 0)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A run's directory with one local host."""
    return plays.make_directory(tmp_path / "run")


@pytest.fixture(scope="session")
async def warm(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[WarmAnsible]:
    """Warm Ansible whose process must not be killed: it is for the whole session."""
    async with plays.warmed(tmp_path_factory.mktemp("kept"), f"test-{uuid4()}") as warm:
        yield warm


@pytest.fixture
def playbooks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of playbooks in place of daos's own: all do nothing."""
    folder = tmp_path / "playbooks"
    folder.mkdir()
    (folder / "ansible.cfg").write_text("[defaults]\naction_plugins = action_plugins\n")
    for name in ("deploy.yml", "down.yml", "halt.yml", "recover.yml"):
        (folder / name).write_text(OK)
    monkeypatch.setattr(play, "project_directory", lambda: folder)
    return folder


@pytest.fixture
def settings(tmp_path: Path) -> WorkerSettings:
    return WorkerSettings(run_root=tmp_path / "runs", cookie=f"test-{uuid4().hex[:8]}")
