"""Reading cases, and the shell of their commands; no server and no docker."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.cases import CASES, Malformed, case_names, read_case, run_command, services_word

LEAST: dict[str, Any] = {"what": "A case.", "expect": "SUCCESS"}


def write_case(directory: Path, files: dict[str, bytes] | None = None, **keys: Any) -> Path:
    """A folder that is a case, with further files and keys."""
    package = {"compose.yaml": b"services: {}\n", **(files or {})}
    for name, content in {**package, "case.json": json.dumps({**LEAST, **keys}).encode()}.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return directory


@pytest.mark.parametrize("name", case_names())
def test_every_folder_is_a_case(name: str) -> None:
    assert read_case(CASES / name).name == name


def test_every_folder_has_a_case() -> None:
    assert {path.name for path in CASES.iterdir() if path.is_dir()} == set(case_names())


def test_files_are_text_or_base64_with_their_modes(tmp_path: Path) -> None:
    files = {"deep/a.txt": "hé".encode(), "b.bin": b"\xff\x00", ".hidden": b"", "then/compose.yaml": b"services: {}\n"}
    case = read_case(write_case(tmp_path, files, modes={"deep/a.txt": "0755"}, keep=[".hidden"]))
    assert case.package.compose_file == "services: {}\n"
    assert sorted(case.package.files, key=str) == [
        {"path": ".hidden", "content": "", "onlyIfMissing": True},
        {"path": "b.bin", "base64": base64.b64encode(b"\xff\x00").decode()},
        {"path": "deep/a.txt", "content": "hé", "mode": "0755"},
    ]
    assert case.then is not None
    assert case.then.files == []


def test_many_adds_numbered_variables(tmp_path: Path) -> None:
    case = read_case(write_case(tmp_path, variables=[{"name": "A", "value": "x"}], many=["N_%02d", 2]))
    assert [(each["name"], each["value"]) for each in case.variables] == [("A", "x"), ("N_01", "1"), ("N_02", "2")]


def test_steps_follow_the_first_deployment(tmp_path: Path) -> None:
    step = {"how": "run again", "between": ["true"], "expect": ["SUCCESS", "FAILED:TIMEOUT"], "check": [["d", "c"]]}
    first, second = read_case(write_case(tmp_path, check=[["a", "b"]], steps=[step])).steps
    assert (first.how, first.expect, first.checks[0].command) == ("", ["SUCCESS"], "b")
    assert (second.how, second.between, second.checks[0].description) == ("run again", ["true"], "d")


@pytest.mark.parametrize(
    "keys",
    [
        {"expected": "SUCCESS"},
        {"id": "of-another-folder"},
        {"expect": "FAILED"},
        {"expect": "SUCCESS:YES"},
        {"modes": {"not-there": "0600"}},
        {"keep": ["not-there"]},
        {"steps": [{"how": "up", "expect": "SUCCESS"}]},
        {"steps": [{"how": "down", "expect": "SUCCESS", "checks": []}]},
        {"steps": [{"how": "new package", "expect": "SUCCESS"}]},
    ],
    ids=str,
)
def test_what_no_case_can_have_is_refused(tmp_path: Path, keys: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        read_case(write_case(tmp_path, **keys))


def test_services_are_words_in_lower_case() -> None:
    containers: list[dict[str, Any]] = [
        {"service": "web", "state": "RUNNING", "health": "HEALTHY"},
        {"service": "once", "state": "EXITED", "health": None},
    ]
    assert services_word(containers) == "web:running:healthy once:exited:-"


def test_a_command_has_its_variables_and_functions() -> None:
    assert run_command('[ "$PROJECT" = p ] && command -v cid && command -v run_in', {"PROJECT": "p"}) is None


def test_a_command_that_fails_says_what_it_printed() -> None:
    assert run_command("echo one; echo two >&2; exit 3", {}) == "one\ntwo (exit status 3)"
