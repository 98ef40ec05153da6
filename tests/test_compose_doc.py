"""docs/compose.md names every case, and no other."""

import re
from pathlib import Path

from tests.support.cases import case_names

ROOT = Path(__file__).parents[1]


def test_every_case_is_in_the_document_and_every_named_one_exists() -> None:
    text = (ROOT / "docs" / "compose.md").read_text()
    named = re.findall(r"\[([\w-]+)\]\(\.\./tests/cases/([\w-]+)\)", text)
    assert all(name == target for name, target in named), named
    assert {name for name, _ in named} == set(case_names())


def test_every_line_of_the_document_has_its_case() -> None:
    text = (ROOT / "docs" / "compose.md").read_text()
    tables = re.findall(r"\|.*\| case \|\n\| --- \| --- \| --- \|\n((?:\|.*\n)+)", text)
    rows = [row for table in tables for row in table.splitlines()]
    assert len(rows) >= len(case_names()) - 3
    assert [row for row in rows if "../tests/cases/" not in row.rsplit("|", 2)[1]] == []
