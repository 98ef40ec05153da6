"""The rules for Compose files: what they accept, what they refuse, and that they do so at once."""

import time
import tracemalloc
from collections.abc import Iterable
from itertools import product
from pathlib import Path
from string import ascii_letters

import pytest

from resolvers.compose_file import EMPTY, problem_of, problems_of
from runner.compose.file import read
from runner.host.delivery import OVERRIDE_FILES
from tests.factories import COMPOSE_FILE
from tests.support.attacks import short
from tests.support.docker import Docker

MEBIBYTE = 1024 * 1024


@pytest.mark.parametrize(
    "text",
    [
        COMPOSE_FILE,
        "services: {web: {image: 'demo:1'}}",
        "\ufeffservices: {web: }",
        "%YAML 1.2\n---\nservices:\n  web: {}\n...\n",
        "# comment\nname: x\nservices:\n  web:\n    environment: !reset []\n    command: ['%TAG']\n",
        "x-base: &base {image: 'demo:1'}\nservices: {web: {<<: *base}}",
        "? {complex: key}\n: 1\nservices: {web: }",
        '"services": {web: }',
        "services: {web: !!python/object/apply:os.system [id]}",  # read as text, never built
        "services: {web: {command: \"{{ lookup('pipe', 'id') }} $(id)\"}}",
    ],
)
def test_a_compose_file_is_a_mapping_with_services_or_include(text: str) -> None:
    assert problem_of(text, has_override=False) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", EMPTY),
        ("# only a comment\n", EMPTY),
        ("services: {a: }\n---\n[services]", "must be a mapping"),
        ("services: {a: }\n---\n", "must be a mapping"),
        ("just text", "must be a mapping"),
        ("- services", "must be a mapping"),
        ("null", "must be a mapping"),
        ("!!python/object/apply:os.system ['id']", "must be a mapping"),
        ("{}", "must have services"),
        ("services:", "must have services"),
        ("services: {}", "must have services"),
        ("services: []", "must have services"),
        ("services: [web]", "must have services"),
        ("services: web", "must have services"),
        ("version: {web: }", "must have services"),
        ("include: []", "must have services"),
        ("include:", "must have services"),
        ("include: a.yaml", "must have include as a list"),
        ("include: {path: a.yaml}", "must have include as a list"),
        ("services: {web: }\ninclude: a.yaml", "must have include as a list"),
        ("include: [a.yaml]\nservices:", "must have services as a mapping"),
        ("services: !reset {web: }", "must have services"),
        ("x: services\n? {web: }\n: 1", "must have services"),  # a value and a key, not a key and its value
        ("x: {services: {web: }}", "must have services"),
        ("services: {web: ", "is not valid YAML at line 2, column 1: did not find expected node content"),
        ("services:\n\tweb: 1", "is not valid YAML at line 2, column 1: there is a tab; indent with spaces"),
        ("services: {web: @}", "is not valid YAML at line 1, column 17: found character that cannot start any token"),
        ("services:\n  web: \x07", "is not valid YAML at line 2: the character U+0007 is not allowed"),
        (
            "%YAML 3.0\n--- {services: {web: }}",
            "is not valid YAML at line 1, column 1: found incompatible YAML document",
        ),
        ("%TAG ! tag:x\n--- {services: {web: }}", "must not have %TAG directives"),
        ("x: " + "[" * 100_000, "must not be nested deeper than 100 levels"),
        ("{a: " * 100_000, "must not be nested deeper than 100 levels"),
        ("? " * 100_000, "must not be nested deeper than 100 levels"),
    ],
    ids=short,
)
def test_another_compose_file_is_refused(text: str, said: str) -> None:
    assert (problem_of(text, has_override=False) or "").startswith(said)


# Each with the path and content of one more file.
COMPOSE_ACCEPTS = {
    "include alone": ("include: [a.yaml]", "a.yaml"),
    "include as an alias": ("x-a: &a [a.yaml]\ninclude: *a", "a.yaml"),
    "include with nothing of its own": ("services: {}\ninclude: [{path: a.yaml}]", "a.yaml"),
    "services as an alias": ("x-a: &a {web: {image: 'demo:1'}}\nservices: *a", "a"),
    "services by a merge key": ("x-a: &a {web: {image: 'demo:1'}}\nservices: {<<: *a}", "a"),
    "all by a merge key": ("x-a: &a {services: {web: {image: 'demo:1'}}}\n<<: *a", "a"),
    "tags of Compose": ("services: !override {web: {image: 'demo:1', ports: !reset [], command: !override [a]}}", "a"),
    "several documents": ("services: {a: {image: 'demo:1'}}\n---\nservices: {b: {image: 'demo:1'}}\n", "a"),
    "services in the override file": ("services: {}", "compose.override.yaml"),
    "all in the override file": ("name: x", "docker-compose.override.yml"),
}


@pytest.mark.parametrize("case", COMPOSE_ACCEPTS)
def test_what_compose_accepts_is_accepted(case: str, docker: Docker, tmp_path: Path) -> None:
    text, path = COMPOSE_ACCEPTS[case]
    has_override = path in OVERRIDE_FILES
    assert problem_of(text, has_override=has_override) is None
    (tmp_path / "compose.yaml").write_text(text)
    (tmp_path / path).write_text(COMPOSE_FILE)
    files = ["compose.yaml", path] if has_override else ["compose.yaml"]
    options = [option for file in files for option in ("--file", str(tmp_path / file))]
    assert docker.run("compose", "--project-name", "p", *options, "config", "--services") != ""


def test_an_override_file_brings_services_but_does_not_make_a_wrong_file_right() -> None:
    assert problem_of("services:", has_override=True) == "must have services as a mapping"
    assert problem_of("", has_override=True) == EMPTY


def test_a_path_into_the_directories_of_daos_is_a_problem() -> None:
    files = {"sub/a.yaml": b"services: {a: {extends: {file: ../../x.yaml, service: x}, env_file: ../ok.env}}"}
    text = "include: [sub/a.yaml]\nservices: {web: {env_file: [a/../../y.env, ../../../z.env, /x, $Y/../../x]}}"
    there = "into the directories of daos on the host; put the file into the package"
    problems = list(problems_of(read(text, files)))
    assert [path for path, _ in problems] == ["sub/a.yaml", "compose.yaml"]
    for (_, problem), words in zip(
        problems, ("'../../x.yaml' at services.a.extends.file", "'a/../../y.env' at services.web.env_file"), strict=True
    ):
        assert problem.startswith(words)
        assert there in problem


def _filled(parts: Iterable[str], begin: str = "services: {web: }\n", end: str = "") -> str:
    """As much of `parts` as a compose file may have between `begin` and `end`."""
    size = MEBIBYTE - len((begin + end).encode())
    taken = []
    for part in parts:
        size -= len(part.encode())
        if size < 0:
            break
        taken.append(part)
    return begin + "".join(taken) + end


def _names() -> Iterable[str]:
    return ("".join(letters) for letters in product(ascii_letters, repeat=4))


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(_filled("a:\n" for _ in range(MEBIBYTE)), id="keys"),
        pytest.param(_filled(("1," for _ in range(MEBIBYTE)), "{services: {web: },", "}"), id="flow"),
        pytest.param(_filled(("*a ," for _ in range(MEBIBYTE)), "x: &a 1\nservices: {web: [", "]}"), id="aliases"),
        pytest.param(_filled((f"&{name} 1," for name in _names()), "services: {web: [", "]}"), id="anchors"),
        pytest.param(_filled(f"%TAG !{name}! a\n" for name in _names()), id="tag directives"),
        pytest.param(_filled((f"%TAG !{name}! a\r" for name in _names()), ""), id="tag directives, old line ends"),
        pytest.param(_filled((f"%TAG !{name}! a\u2028" for name in _names()), ""), id="tag directives, rare line ends"),
        pytest.param(_filled("- " for _ in range(MEBIBYTE)), id="sequences"),
        pytest.param(_filled("--- {}\n" for _ in range(MEBIBYTE)), id="documents"),
        pytest.param(_filled(" " * depth + "a:\n" for depth in range(2000)), id="indentation"),
        pytest.param(
            "x0: &x0 [1]\n"
            + "".join(f"x{n}: &x{n} [{','.join([f'*x{n - 1}'] * 9)}]\n" for n in range(1, 1000))
            + COMPOSE_FILE,
            id="billion laughs",
        ),
    ],
)
def test_no_compose_file_takes_long_to_read(text: str) -> None:
    began = time.thread_time()
    problem_of(text, has_override=False)
    read(text, {})
    assert time.thread_time() - began < 10  # seconds of a slow processor under coverage; else most take a tenth of one


def test_reading_a_compose_file_keeps_nothing_of_it() -> None:
    text = "services: {web: }\n" + "a:\n" * 50_000
    tracemalloc.start()
    try:
        assert problem_of(text, has_override=False) is None
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10 * len(text)  # bytes
