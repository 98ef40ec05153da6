"""The script for a host: its parts in their order, only those that the phases need, and safe to send."""

import subprocess
import sys
from pathlib import Path

import pytest

from db.phase import Phase
from runner.host.script import ALL, DOWN, PARTS, RECOVERY, UP, escaped, joined, read

DIRECTORY = Path(__file__).parents[3] / "ansible/files/compose_project"


def test_each_file_of_the_directory_is_a_part() -> None:
    assert {f"{name}.sh" for name in PARTS} == {path.name for path in DIRECTORY.iterdir()}
    assert list(read(DIRECTORY)) == list(PARTS)


@pytest.mark.parametrize(("phases", "missing"), [(UP, DOWN), (DOWN, RECOVERY), (RECOVERY, UP)])
def test_a_part_is_there_where_one_of_the_phases_needs_it(phases: frozenset[Phase], missing: frozenset[Phase]) -> None:
    text = joined({name: f"<{name}>" for name in PARTS}, [next(iter(phases))])
    expected = [name for name, needed in PARTS.items() if needed & phases]
    assert text == "".join(f"<{name}>" for name in expected)
    assert [name for name in expected if PARTS[name] == missing] == []


def test_the_whole_begins_with_the_protocol_and_ends_with_main() -> None:
    parts = read(DIRECTORY)
    whole = joined(parts, ALL)
    assert whole == "".join(parts.values())
    assert whole.startswith(parts["protocol"])
    assert whole.endswith(parts["main"])


@pytest.mark.parametrize("text", ["a 'b' \"c\" $d `e` !f \\g", "ä\n\ttab\n", "100%\n", ""])
def test_what_is_escaped_is_printed_as_it_was(text: str) -> None:
    sent = escaped(text)
    printed = subprocess.run(["sh", "-c", f"printf %b '{sent}'"], check=True, capture_output=True)
    assert printed.stdout.decode() == text
    assert sent.isascii()
    assert not set(sent) & set("'\"$`!\n")


def test_comments_are_not_sent() -> None:
    assert escaped("# one\na\n  # two\nb # stays\n") == escaped("a\nb # stays\n")


def test_the_module_prints_the_whole_for_a_linter() -> None:
    printed = subprocess.run([sys.executable, "-m", "runner.host.script"], check=True, capture_output=True, text=True)
    assert printed.stdout == joined(read(DIRECTORY), ALL)
