"""Which tests `--quick` runs."""

from pathlib import Path, PurePath

import pytest

from tests import conftest
from tests.runner import conftest as runner_conftest
from tests.support.quick import FOLDERS, PIECES, PLAYS, is_quick, may_have_quick

ROOT = Path(__file__).parents[2]
SQLITE, POSTGRESQL = {"db": "sqlite"}, {"db": "postgresql"}


def test_the_folders_are_there() -> None:
    assert [folder for folder in (*FOLDERS, PLAYS) if not (ROOT / folder).is_dir()] == []


@pytest.mark.parametrize("path", ["tests/db/test_models.py", "tests/runner/ssh/test_keys.py", "tests/test_house.py"])
def test_a_test_of_a_module_is_one_with_what_python_alone_can_start(path: str) -> None:
    assert is_quick(PurePath(path), ["db", "tmp_path"], SQLITE)
    assert not is_quick(PurePath(path), ["db", "tmp_path"], POSTGRESQL)
    assert not is_quick(PurePath(path), ["project_name", "docker"], {})
    assert not is_quick(PurePath(path), ["playbooks"], {})


@pytest.mark.parametrize(
    "path", ["tests/e2e", "tests/api/test_gql.py", "tests/runner/play/test_play.py", "tests/cases"]
)
def test_what_is_about_more_than_a_module_is_not_even_read(path: str) -> None:
    assert not may_have_quick(PurePath(path))


def test_a_piece_is_a_fixture() -> None:
    assert [name for name in PIECES - {"playbooks"} if not hasattr(conftest, name)] == []
    assert hasattr(runner_conftest, "playbooks")
