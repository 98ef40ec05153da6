"""Checksums of what is delivered: alike for what is alike, and the same in each process."""

from hashlib import sha256

import pytest

from runner.host.content import Content, DeliveredFile, digest


@pytest.mark.parametrize(("one", "other"), [({"a": 1, "b": 2}, {"b": 2, "a": 1}), ([1, "ä"], [1, "ä"])])
def test_what_is_alike_has_one_digest(one: object, other: object) -> None:
    assert digest(one) == digest(other)


@pytest.mark.parametrize("other", [{"a": "1"}, {"a": [1]}, {"a": None}, {}, [1, 2]])
def test_what_differs_has_another_digest(other: object) -> None:
    assert digest({"a": 1}) != digest(other)


def test_a_digest_is_that_of_the_json_as_earlier_releases_have_stored_it() -> None:
    assert digest({"image": "demo:1"}) == sha256(b'{"image": "demo:1"}').hexdigest()


def test_contents_are_equal_by_their_values() -> None:
    one, other = (Content({"compose.yaml": DeliveredFile("0", 0o644)}, {"A": "1"}) for _ in range(2))
    assert one == other
    assert one != Content({"compose.yaml": DeliveredFile("0", 0o600)}, {"A": "1"})
