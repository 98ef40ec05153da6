"""The homes that choose a version of compose."""

from pathlib import Path

import pytest

from tests.support import compose_versions


@pytest.fixture
def newest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "newest"
    directory.mkdir()
    monkeypatch.setenv(compose_versions.NEWEST, str(directory))
    return directory


def test_it_is_missing_without_buildx(newest: Path) -> None:
    (newest / "docker-compose").touch(mode=0o755)
    assert "docker-buildx" in (compose_versions.why_missing() or "")
    (newest / "docker-buildx").touch(mode=0o755)
    assert compose_versions.why_missing() is None


def test_a_home_of_the_newest_has_its_plugins_and_another_has_none(newest: Path, tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    one = compose_versions.make_home(tmp_path / "one", "newest")
    other = compose_versions.make_home(tmp_path / "other", "installed")
    assert (one / ".docker/cli-plugins/docker-compose").readlink() == newest / "docker-compose"
    assert list(other.iterdir()) == []
