"""Each file of tests/e2e has its database, and about half of them have PostgreSQL."""

from collections import Counter
from pathlib import Path, PurePath

from tests.support.databases import ASSIGNED, OWN, POSTGRESQL, SQLITE, for_both, of_file

E2E = Path(__file__).parents[1] / "e2e"


def test_each_file_is_assigned_to_a_database() -> None:
    assert ASSIGNED.keys() == {path.name for path in E2E.glob("test_*.py")}


def test_neither_of_the_two_is_forgotten() -> None:
    counts = Counter(ASSIGNED.values())
    with_postgresql = counts[POSTGRESQL] + counts[OWN]
    assert 0.4 < with_postgresql / counts.total() < 0.6


def test_a_file_has_its_database_or_both() -> None:
    live, own = E2E / "test_live.py", E2E / "test_copy.py"
    assert (of_file(live), for_both(live)) == (POSTGRESQL, [SQLITE, POSTGRESQL])
    assert (of_file(own), for_both(own)) == (SQLITE, [SQLITE])
    assert of_file(PurePath("tests/browser/test_live.py")) == SQLITE
