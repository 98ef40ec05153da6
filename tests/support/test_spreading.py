"""Which tests are sent to a process together."""

from pathlib import Path

import pytest

from tests.support.spreading import SPREAD, unit

ROOT = Path(__file__).parents[2]


def test_the_tests_of_a_file_stay_together() -> None:
    assert unit("tests/db/test_database.py::test_one[sqlite]") == unit("tests/db/test_database.py::test_two")


@pytest.mark.parametrize("file", SPREAD)
def test_each_case_is_by_itself_with_all_its_ways(file: str) -> None:
    one, again = f"{file}::test_case[one:LOCAL:installed]", f"{file}::test_case[one:SSH:newest]"
    assert unit(one) == unit(again) != unit(f"{file}::test_case[other:SSH:newest]")


def test_pytest_asks_this_module_for_its_scheduler(request: pytest.FixtureRequest) -> None:
    asked = request.config.hook.pytest_xdist_make_scheduler.get_hookimpls()
    assert str(ROOT / "tests" / "conftest.py") in {getattr(each.plugin, "__file__", "") for each in asked}
