"""Which variables a text and an env file require."""

import time

import pytest

from runner.compose.interpolation import Requirement, missing, read_env_file, requirements_of


def _missing(text: str, *given: str) -> list[str]:
    return missing(requirements_of(text), given)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", []),
        ("no variable, $ and $1 and ${", []),
        ("$A", ["A"]),
        ("${A}", ["A"]),
        ("$A_1-$B.$C", ["A_1", "B", "C"]),
        ("$$A and $${A} and $$$A2", ["A2"]),
        ("${A:?say why} ${B?}", ["A", "B"]),
        ("${A:-x} ${B-x} ${C:-} ${D:+x} ${E+x}", []),
        ("${A:-x}${B}", ["B"]),
        ("${A-a}b${B:-{}}", []),
        ("${A:-${B}}", ["B"]),
        ("${A:-${B:-${C}}}", ["C"]),
        ("${A:-${B:-c}}", []),
        ("${A:-$$B}", []),
        ("{${A}}", ["A"]),
        ("${A}\n${B}", ["A", "B"]),
        ("${A:-x\ny}", []),  # invalid to Compose
        ("${A-", []),
        ("${A B}", []),
        ("$" + "A" * 129, []),  # no deployment can have it
    ],
)
def test_a_variable_without_a_default_is_required(text: str, names: list[str]) -> None:
    assert _missing(text) == names


def test_a_variable_in_a_default_is_required_where_the_default_is_used() -> None:
    assert _missing("${A:-${B}}", "A") == []
    assert _missing("${A:-${B}}", "B") == []
    assert _missing("${A+${B}}", "A") == ["B"]
    assert _missing("${A+${B}}", "A", "B") == []
    assert _missing("${A:-${B:+${C}}}", "B") == ["C"]
    assert _missing("${A:-${B:+${C}}}", "A", "B") == []


def test_a_name_is_required_once_and_in_order() -> None:
    assert _missing("$B $A ${B} ${X:-$A}") == ["A", "B"]


def test_known_names_are_taken_out() -> None:
    assert Requirement("A").knowing({"A"}) is None
    assert Requirement("A", unless=("B",)).knowing({"B"}) is None
    assert Requirement("A", ("B",), ("C", "D")).knowing({"C"}) == Requirement("A", ("B",), ("D",))


def test_a_requirement_can_be_stored() -> None:
    requirement = Requirement("A", ("B",), ("C",))
    assert Requirement.from_json(requirement.as_json()) == requirement


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("A=$B", ["B"]),
        ("A=1\nC=${A}${B}", ["B"]),
        ("C=${A}\nA=1", ["A"]),
        ("A='$B'", []),
        ('A="$B"', ["B"]),
        (r'A="\$B \\$C \"$D\""', ["C", "D"]),
        ('A="1\n$B\n" # $C\nD=$E', ["B", "E"]),
        ("# $A\n  # $B\nC=1 # $D\nE=1#$F", ["F"]),
        ("export A=$B\r\nC: $D\r\n", ["B", "D"]),
        ("A\nB=${A}", ["A"]),  # taken from the environment
        ("\ufeffA=$B", ["B"]),
        ("A=", []),
        ("A", []),
        ("A='$B\nC=$D", []),  # invalid: not closed
        ("C=$D\nA B=1", []),  # invalid: a blank
        ("C=$D\n%=1", []),
    ],
)
def test_an_env_file_requires_what_its_values_use(text: str, names: list[str]) -> None:
    assert missing(read_env_file(text.encode(), set()), ()) == names


def test_what_an_env_file_sets_is_known_afterwards() -> None:
    known = {"X"}
    assert read_env_file(b"A=$X\nB='1'\nC", known) == []
    assert known == {"X", "A", "B"}


@pytest.mark.parametrize(
    "text",
    [
        "${A:-" * 200_000,
        "${A:-" * 200_000 + "}" * 200_000,
        "${A:-x}" * 150_000 + "x" * 200_000,
        "${A:-{" * 150_000 + "}",
        "$A" * 500_000,
        "{" * 1_000_000,
        "${A:-\n}" * 150_000,
        "A='" * 300_000,
        "A " * 500_000,
        "#\n" * 500_000,
        '"\\' * 500_000,
    ],
    ids=range(11),
)
def test_no_text_takes_long_to_read(text: str) -> None:
    began = time.thread_time()
    list(requirements_of(text))
    read_env_file(b"A=" + text.encode(), set())
    read_env_file(b'A="' + text.encode(), set())
    read_env_file(text.encode(), set())
    assert time.thread_time() - began < 10  # seconds of a slow processor; most take a tenth of one
