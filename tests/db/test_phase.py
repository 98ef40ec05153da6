"""The names of phases."""

import subprocess
import sys

import pytest

from db.phase import Phase


@pytest.mark.parametrize("phase", Phase)
def test_a_phase_is_found_by_its_word_on_the_host(phase: Phase) -> None:
    assert Phase[phase.word.upper()] is phase
    assert phase.label.lower() == phase.word


def test_it_needs_the_standard_library_only() -> None:
    """Ansible's process imports it."""
    script = "import sys; import db.phase; print(sorted(name for name in sys.modules if name.startswith('sqlalchemy')))"
    ended = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert ended.stdout == "[]\n"
