"""Text of hosts: one printable line."""

import pytest

from runner.host.text import human_size, one_line, printable


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("no money\n", "no money"),
        ("  % Total\r  0 0\rcurl: (7) refused\n", "% Total 0 0 curl: (7) refused"),
        ("\x1b[31mred\x1b[0m \x07bell", "red bell"),
        ("\x1b]0;title\x07shown", "shown"),
        ("one\u2028two", "one two"),
        ("", ""),
    ],
)
def test_text_becomes_one_printable_line(text: str, line: str) -> None:
    assert one_line(text) == line


def test_the_end_of_a_long_text_stays() -> None:
    line = one_line("x" * 5000 + "\nthe reason")
    assert len(line) == 200
    assert line.startswith("…x")
    assert line.endswith("x the reason")


def test_a_text_of_the_limit_is_whole() -> None:
    assert one_line("x" * 200) == "x" * 200


def test_a_tab_is_printable() -> None:
    assert printable("a\tb\x00\x9bc") == "a\tbc"


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (65_540, "65.5 kB"), (45_200_000, "45.2 MB"), (1.2e9, "1.2 GB"), (2e15, "2000 TB")],
)
def test_sizes_are_written_as_docker_does(size: float, text: str) -> None:
    assert human_size(size) == text
