"""The directories of runs: nobody else can own them, exchange them, or read them."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from runner.private import NotPrivate, claim


def as_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a directory away")


def a_link(place: Path) -> str:
    (place.parent / "theirs").mkdir(mode=0o700)
    place.symlink_to(place.parent / "theirs")
    return f"{place} is not a directory"


def a_file(place: Path) -> str:
    place.touch()
    return f"{place} is not a directory"


def one_of_somebody_else(place: Path) -> str:
    as_root()
    place.mkdir(mode=0o700)
    os.chown(place, 54321, 54321)
    return f"{place} belongs to user 54321"


def one_that_others_may_enter(place: Path) -> str:
    place.mkdir()
    place.chmod(0o710)
    return f"{place} has mode 0710 instead of 0700"


@pytest.mark.parametrize("make", [a_link, a_file, one_of_somebody_else, one_that_others_may_enter])
def test_what_others_have_made_is_refused_with_the_way_out(tmp_path: Path, make: Callable[[Path], str]) -> None:
    place = tmp_path / "runs"
    problem = make(place)
    with pytest.raises(NotPrivate) as error:
        claim(place)
    assert str(error.value) == f"{problem}, so that files of runs are not safe there. Remove it, or set DAOS_RUN_DIR."


def test_a_directory_is_made_for_us_alone_and_taken_again(tmp_path: Path) -> None:
    place = tmp_path / "new/runs"
    for _ in range(2):
        claim(place)
        assert place.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(("mode", "is_safe"), [(0o777, False), (0o1777, True), (0o755, True)])
def test_a_directory_that_everybody_can_rename_is_refused(tmp_path: Path, mode: int, *, is_safe: bool) -> None:
    tmp_path.chmod(mode)
    if is_safe:
        claim(tmp_path / "runs")
    else:
        with pytest.raises(NotPrivate, match="Everybody can rename"):
            claim(tmp_path / "runs")


def test_a_directory_in_one_of_somebody_else_is_refused(tmp_path: Path) -> None:
    as_root()
    os.chown(tmp_path, 54321, 54321)
    with pytest.raises(NotPrivate, match=r"belongs to user 54321, who can exchange .*/runs\. Set DAOS_RUN_DIR\.$"):
        claim(tmp_path / "runs")
