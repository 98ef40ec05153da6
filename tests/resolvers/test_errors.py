"""Errors that are expected: each is a sentence with its values, a code, and a status."""

import string
from collections.abc import Iterator
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from resolvers import errors
from resolvers.errors import (
    DaosError,
    ErrorCode,
    HostHasRunInProgress,
    HostNotFound,
    InUse,
    InvalidInput,
    NameTaken,
    NotFound,
    Problem,
    ProjectTaken,
    RunInProgress,
    TokenExpired,
)

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, DaosError)]
PLAIN = [kind for kind in KINDS if kind.__init__ is DaosError.__init__]  # they take what their sentence has
STATUS = {
    ErrorCode.NOT_FOUND: 404,
    ErrorCode.UNAUTHENTICATED: 401,
    ErrorCode.FORBIDDEN: 403,
    ErrorCode.STORAGE_FULL: 507,
}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_each_has_a_sentence_a_code_and_its_status(kind: type[DaosError]) -> None:
    assert kind.__doc__
    assert "\n" not in kind.__doc__
    assert kind.status == STATUS.get(kind.code, 400)


def _fields(kind: type[DaosError]) -> Iterator[str]:
    for _, name, _, _ in string.Formatter().parse(kind.__doc__ or ""):
        if name:
            yield name


@pytest.mark.parametrize("kind", PLAIN, ids=lambda kind: kind.__name__)
def test_a_sentence_has_all_values_filled_in(kind: type[DaosError]) -> None:
    values: dict[str, object] = dict.fromkeys(_fields(kind), "VALUE")
    values |= {"moment": datetime(2026, 1, 31, 12, 0, tzinfo=UTC)} if "moment" in values else {}
    text = str(kind(**values))
    assert "{" not in text
    assert ("VALUE" in text) == ("VALUE" in values.values())


@pytest.mark.parametrize(
    ("kind", "hint"),
    [
        ("Host", "; the query hosts lists the ids"),
        ("Run", "; the field runs of its deployment lists the ids"),
        ("Node", ""),
    ],
)
def test_what_is_not_found_says_where_the_ids_are(kind: str, hint: str) -> None:
    assert str(NotFound(kind=kind, id="1")) == f"{kind} '1' was not found{hint}."


def test_a_host_that_an_input_names_has_a_code_of_its_own() -> None:
    assert (HostNotFound(id="1").code, HostNotFound(id="1").status) == ("HOST_NOT_FOUND", 400)


@pytest.mark.parametrize("kind", [RunInProgress, HostHasRunInProgress])
def test_a_run_that_is_in_the_way_is_named_for_programs_too(kind: type[RunInProgress]) -> None:
    run = uuid4()
    error = kind(id="1", run=run)
    assert str(run) in str(error)
    assert error.extensions == {"run_id": str(run)}
    assert kind(id="1", run=None).extensions == {}


def test_a_name_that_is_taken_says_which_argument_to_change() -> None:
    assert str(NameTaken(kind="Host", name="web")).endswith("choose another name.")
    taken = ProjectTaken(name="shop", host="web-1")
    assert str(taken) == "Project 'shop' exists already on host 'web-1'; choose another projectName."
    assert taken.code is ErrorCode.NAME_TAKEN


@pytest.mark.parametrize(
    ("count", "words", "extensions"),
    [
        (0, "hosts that you cannot see", set()),
        (1, "host 'FIRST'", {"count", "host_id"}),
        (3, "3 hosts; the first is 'FIRST'", {"count", "host_id"}),
    ],
)
def test_what_is_in_use_tells_of_what_the_principal_sees(count: int, words: str, extensions: set[str]) -> None:
    first = uuid4()
    error = InUse(kind="SSH key", id="1", noun="host", count=count, first=first)
    assert str(error) == f"SSH key '1' is in use by {words.replace('FIRST', str(first))}."
    assert error.extensions.keys() == extensions


def test_one_problem_is_the_message_and_several_are_counted() -> None:
    problems = [Problem(("name",), "REQUIRED", "name is needed."), Problem(("port",), "RANGE", "port is too large.")]
    assert str(InvalidInput(problems[:1])) == "name is needed."
    assert str(InvalidInput(problems)) == "The input breaks 2 rules."
    assert InvalidInput(problems).problems == problems


def test_a_moment_is_told_to_the_minute() -> None:
    error = TokenExpired(name="ci", moment=datetime(2026, 1, 31, 12, 5, tzinfo=UTC))
    assert "'ci' expired on 2026-01-31 at 12:05 UTC" in str(error)
