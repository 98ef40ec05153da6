"""YAML as Compose reads it: bounded, never expanded, and what is wrong is one sentence with its place."""

import contextlib
import time

import pytest

from runner.compose.yaml_events import MAX_DEPTH, TooLarge, Unreadable, events, read

MANY = 10_000  # nodes


def roots(text: str) -> list[object]:
    document, _ = read(text, MANY)
    return list(document.roots)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("a: 1\nb: [x, null]", [{"a": "1", "b": ["x", "null"]}]),
        ("a: 1\n---\nb: 2", [{"a": "1"}, {"b": "2"}]),
        ("base: &b {x: 1}\nweb: *b", [{"base": {"x": "1"}, "web": {"x": "1"}}]),
        ("web: {<<: {x: 1}}", [{"web": {"<<": {"x": "1"}}}]),
        ("a: !reset null\nb: 1", [{"b": "1"}]),
        ("a: [1, !reset 2]", [{"a": ["1"]}]),
        ("? [k]\n: v\na: 1", [{"a": "1"}]),
    ],
)
def test_a_tree_has_strings_for_scalars_and_only_keys_that_are_strings(text: str, expected: list[object]) -> None:
    assert roots(text) == expected


def test_an_alias_is_the_node_that_it_names_and_a_bomb_of_them_is_small() -> None:
    lines = ["a0: &a0 [x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 50))]
    document, nodes = read("\n".join(lines), MANY)
    [root] = document.roots
    assert isinstance(root, dict)
    assert root["a1"][0] is root["a0"]  # type: ignore[index] # lists, as they are written
    assert nodes < 1000


def test_an_anchor_ends_with_its_document() -> None:
    with pytest.raises(Unreadable, match="unknown anchor 'a'"):
        read("x: &a 1\n---\ny: *a", MANY)


def test_what_values_require_is_found_and_not_in_keys_nor_in_what_is_reset() -> None:
    document, _ = read("a: ${A}\n${B}: 1\nc: !reset ${C}\nd: ['$D', \"$$E\"]", MANY)
    assert [requirement.name for requirement in document.requirements] == ["A", "D"]


def test_more_nodes_than_are_looked_at_are_too_large() -> None:
    read("[1, 2, 3]", 4)
    with pytest.raises(TooLarge):
        read("[1, 2, 3, 4]", 4)


def test_nesting_has_a_limit() -> None:
    deepest = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    read(deepest, MANY)
    with pytest.raises(Unreadable, match=f"deeper than {MAX_DEPTH} levels"):
        read(f"[{deepest}]", MANY)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a:\n\tb: 2", "is not valid YAML at line 2, column 1: there is a tab; indent with spaces"),
        (
            "a: b: c",
            "is not valid YAML at line 1, column 5: mapping values are not allowed in this context; check",
        ),
        ("a: [1", "is not valid YAML at line 2, column 1: did not find expected ',' or ']'"),
        ("a: \x07", "is not valid YAML at line 1: the character U+0007 is not allowed"),
        ("ä: 1\nb: \x07", "is not valid YAML at line 2: the character U+0007 is not allowed"),
        ("a: \ud800", "is not valid YAML: half of a surrogate pair is not allowed"),
        ("%TAG ! tag:example,2000:\n---\na: 1", "must not have %TAG directives"),
    ],
)
def test_what_is_wrong_is_a_sentence_with_its_place(text: str, sentence: str) -> None:
    with pytest.raises(Unreadable) as refused:
        list(events(text))
    assert str(refused.value).startswith(sentence)


TAGS = "".join(f"%TAG !{number}! tag:e:{number}\n" for number in range(50_000))


@pytest.mark.parametrize(
    "text",
    [f"{TAGS}---\na: 1", "[" * 100_000, "a: &a [*a, *a]\n" * 1000],
    ids=["tags", "brackets", "aliases of themselves"],
)
def test_no_text_takes_long_to_read(text: str) -> None:
    began = time.process_time()
    with contextlib.suppress(Unreadable, TooLarge):
        read(text, MANY)
    assert time.process_time() - began < 2
