"""Every DAOS_ variable that a deployment or the manual names is one that daos reads."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from daos.settings import Settings, variable_name

ROOT = Path(__file__).parents[2]
TEXTS = [
    ROOT / "compose.yaml",
    ROOT / "Dockerfile",
    *(path for path in (ROOT / "deploy").rglob("*") if path.is_file() and path.parent.name not in {"secrets", "ssh"}),
    *ROOT.glob("docs/*.md"),
]
SETTINGS = {variable_name(setting.name) for setting in fields(Settings)}


@pytest.mark.parametrize("text", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_variable_that_is_named_is_a_setting(text: Path) -> None:
    assert set(re.findall(r"\bDAOS_[A-Z_]+\b", text.read_text())) <= SETTINGS
