"""What Compose reads of a package and needs for it, compared with Compose itself."""

import os
import re
import subprocess
import time
from pathlib import Path

import pytest

from runner.compose.file import read, reads_outside
from runner.compose.interpolation import missing
from runner.host.delivery import COMPOSE_FILE, OVERRIDE_FILES
from tests.support.docker import Docker

WARNING = re.compile(r'The \\"(\w+)\\" variable is not set')


def _services(**services: str) -> str:
    return "services:\n" + "".join(f"  {name}: {{image: i, {rest}}}\n" for name, rest in services.items())


def _missing(compose_file: str, files: dict[str, str] | None = None, *given: str) -> list[str]:
    reading = read(compose_file, {path: content.encode() for path, content in (files or {}).items()})
    return missing(reading.requirements, given)


WEB = _services(web="command: $$no")

# Each is a compose file, other files, and the variables that Compose misses in them.
PACKAGES: dict[str, tuple[str, dict[str, str], list[str]]] = {
    "values and no keys": (
        'x-a: ["$XA", {"$KEY": "$XV"}]\n' + _services(web='command: ["$C", "${D:-d}", "$$E"]') + "# $COMMENT",
        {},
        ["C", "XA", "XV"],
    ),
    "an anchor and its aliases": (
        "x-a: &a {image: 'i$I'}\nservices: {web: {<<: *a, command: $C}, other: *a}",
        {},
        ["C", "I"],
    ),
    "tags of Compose": (_services(web='labels: !reset ["$R"], command: !override ["$O"]'), {}, ["O"]),
    "several documents": (f"{_services(a='command: $A')}---\n{_services(b='command: $B')}", {}, ["A", "B"]),
    "nested defaults": (
        _services(web='command: "${A:-${B}} ${C:-${D:-d}} ${E-$F}g${G} ${PWD}${COMPOSE_PROJECT_NAME}"'),
        {},
        ["B", "F", "G"],
    ),
    "an environment without values": (_services(web='environment: [A, "B=$C"]'), {}, ["C"]),
    "a service of a profile": (_services(web="command: a", more="profiles: [p], command: $C"), {}, ["C"]),
    "an override file": (
        WEB,
        {"compose.override.yaml": _services(web="command: $A"), "docker-compose.override.yml": "x: $B"},
        ["A"],
    ),
    "an override file of an override file": (
        _services(web="env_file: a.env"),
        {"compose.override.yml": _services(web="env_file: b.env"), "a.env": "A=1\nB=$C", "b.env": "D=$A$E"},
        ["C", "E"],
    ),
    "an include": (
        "include: [a.yaml, {path: [sub/b.yaml, c.yaml]}]",
        {"a.yaml": _services(a="command: $A"), "sub/b.yaml": _services(b="command: $B"), "sub/c.yaml": "x: $X"}
        | {"c.yaml": "x-c: $C"},
        ["A", "B", "C"],
    ),
    "an include with an env file of its own": (
        "include: [sub/a.yaml]\n" + _services(web="command: $KNOWN"),
        {
            "sub/a.yaml": "include: [deeper/b.yaml]\n" + _services(a="command: '$KNOWN $A'"),
            "sub/.env": "KNOWN=1\nB='$B'\nC=\"$C$KNOWN\"\nD=${D:-$E}\nINHERITED\n",
            "sub/deeper/b.yaml": _services(b="command: '$KNOWN $F $INHERITED'"),
        },
        ["A", "C", "E", "F", "INHERITED", "KNOWN"],
    ),
    "an include with env files that it names": (
        "include: [{path: sub/a.yaml, env_file: [one.env, two.env]}]",
        {
            "sub/a.yaml": _services(a="command: '$ONE $TWO $THREE'"),
            "sub/.env": "THREE=3",
            "one.env": "ONE=1",
            "two.env": "TWO=$ONE$FOUR",
        },
        ["FOUR", "THREE"],
    ),
    "an include with another directory": (
        "include: [{path: sub/a.yaml, project_directory: other}]",
        {"sub/a.yaml": _services(a="command: '$ONE $TWO'"), "sub/.env": "ONE=1", "other/.env": "TWO=2"},
        ["ONE"],
    ),
    "extends": (
        _services(web="extends: {file: sub/base.yaml, service: base}", other="extends: web"),
        {
            "sub/base.yaml": "include: [none.yaml]\n"
            + _services(
                base="env_file: a.env, extends: {file: deeper/c.yaml, service: c}",
                unused="command: $U, extends: {file: none.yaml, service: x}",
            ),
            "sub/a.env": "A=$A$C",
            "sub/deeper/c.yaml": _services(c="labels: [$C], env_file: c.env"),
            "sub/deeper/c.env": "C=$D",
        },
        ["A", "C", "D", "U"],
    ),
    "extends with a merge key": (
        "x-a: &a {extends: {file: b.yaml, service: b}}\nx-c: &c {<<: [*a]}\nservices: {web: {<<: *c}}",
        {"b.yaml": _services(b="command: $B")},
        ["B"],
    ),
    "env files": (
        _services(web="env_file: [a.env, {path: b.env}, {path: none.env, required: false}], environment: {S: s}"),
        {"a.env": "A=1\nB=$A$S # $NO\nC='$D'", "b.env": '# $NO\nD="$B$E"\nF=\\$G'},
        ["E", "G", "S"],
    ),
    "env files of two services": (
        _services(a="env_file: [a.env, b.env]", b="env_file: b.env"),
        {"a.env": "A=1", "b.env": "B=$A"},
        ["A"],
    ),
    "an env file in an include": (
        "include: [sub/a.yaml]",
        {"sub/a.yaml": _services(a="env_file: a.env"), "sub/.env": "KNOWN=1", "sub/a.env": "A=$KNOWN"},
        ["KNOWN"],
    ),
}


@pytest.mark.parametrize("case", PACKAGES)
def test_the_missing_variables_are_those_of_compose(case: str, docker: Docker, tmp_path: Path) -> None:
    compose_file, files, expected = PACKAGES[case]
    assert _missing(compose_file, files) == expected
    for path, content in {COMPOSE_FILE: compose_file, **files}.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(content)
    override = next((path for path in OVERRIDE_FILES if path in files), None)
    options = ["--file", COMPOSE_FILE, *(["--file", override] if override else [])]
    ended = subprocess.run(
        ["docker", "compose", "--project-name", "p", *options, "config"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], "PWD": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert sorted(set(WARNING.findall(ended.stderr))) == expected


def test_what_is_given_is_not_missing() -> None:
    compose_file = _services(web='command: "$A ${B:-${C}}"')
    assert _missing(compose_file, {}, "A", "B") == []
    assert _missing(compose_file, {}, "C") == ["A"]


def test_secrets_and_configs_need_the_variables_that_they_are() -> None:
    compose_file = WEB + "secrets: {a: {environment: A}, b: {environment: $B}}\nconfigs: {c: {environment: C}}\n"
    assert _missing(compose_file) == ["A", "B", "C"]


def test_a_value_in_an_env_file_may_be_raw() -> None:
    assert _missing(_services(web="env_file: [{path: a.env, format: raw}]"), {"a.env": "A=$B"}) == []


@pytest.mark.parametrize(
    "compose_file",
    [
        "",
        "[]",
        "services: {web: @}",
        "a: *a",
        "services: &a [*a]",
        "services: &a {web: *a}",
        "include: &a [*a, {path: *a}]",
        "services: {web: {extends: web}}",
        "services: {web: {extends: {file: a.yaml, service: a}, env_file: {path: [a]}}, other: [1], 1: 2}",
        "include: [a.yaml]",
        "include: [compose.yaml, b.yaml]",
        "<<: &a {<<: *a}",
    ],
)
def test_files_that_compose_refuses_need_nothing(compose_file: str) -> None:
    files = {
        "a.yaml": "include: [a.yaml, b.yaml]\nservices: {a: {extends: {file: a.yaml, service: a}}}",
        "b.yaml": "include: [a.yaml]",
    }
    assert _missing(compose_file, files) == []


def test_a_file_that_is_no_text_is_left_out() -> None:
    reading = read("include: [a.yaml]\n" + _services(web="command: $A"), {"a.yaml": b"\xff\xfe"})
    assert (missing(reading.requirements, ()), reading.reads_outside) == (["A"], True)


@pytest.mark.parametrize(
    ("compose_file", "files"),
    [
        (WEB, {}),
        (_services(web="env_file: [a.env, .env, ./sub/../sub/b.env]"), {"a.env": "", "sub/b.env": ""}),
        (
            _services(web="extends: {file: sub/a.yaml, service: a}"),
            {"sub/a.yaml": _services(a="env_file: ../b.env"), "b.env": ""},
        ),
        ("include: [a.yaml]", {"a.yaml": WEB}),
        ("include: [sub/a.yaml]", {"sub/a.yaml": WEB, "sub/.env": ""}),
        ("include: [{path: sub/a.yaml, env_file: /dev/null}]", {"sub/a.yaml": WEB}),
        (_services(web="volumes: ['/a:/a', '../b:/b']") + "configs: {c: {file: /etc/hosts}}\n", {}),
        (_services(web="command: ../a, build: ../b"), {}),
    ],
)
def test_a_package_can_have_all_that_compose_reads(compose_file: str, files: dict[str, str]) -> None:
    assert not reads_outside(compose_file, {path: content.encode() for path, content in files.items()})


@pytest.mark.parametrize(
    "path",
    [
        "/etc/a.yaml",
        "~/a.yaml",
        "../a.yaml",
        "sub/../../a.yaml",
        "../../../a.yaml",
        "$A.yaml",
        "${A:-a.yaml}",
        "none.yaml",
        "oci://registry.example/a",
        "https://example.com/a.git",
        "git@example.com:a/b.git",
        "github.com/a/b.git",
    ],
)
def test_what_is_not_in_the_package_is_outside(path: str) -> None:
    files = {"a.yaml": WEB.encode(), "github.com/a/b.git": WEB.encode()}
    for compose_file in (
        f"include: ['{path}']",
        f"include: [{{path: [a.yaml, '{path}']}}]",
        f"include: [{{path: a.yaml, env_file: '{path}'}}]",
        f"include: [{{path: a.yaml, project_directory: '{path}'}}]",
        f"x-a: &a {{env_file: '{path}'}}\nservices: {{web: {{image: i, <<: *a}}}}",
        _services(web=f"env_file: '{path}'"),
        _services(web=f"env_file: [{{path: '{path}', required: false}}]"),
        _services(web=f"label_file: ['{path}']"),
        _services(web=f"extends: {{file: '{path}', service: web}}"),
    ):
        assert reads_outside(compose_file, files), compose_file


@pytest.mark.parametrize("compose_file", ["services: @", "include: [{}]", "include: [sub/a.yaml]"])
def test_what_cannot_be_known_is_outside(compose_file: str) -> None:
    # The last: a container can have made sub/.env, and Compose would read it.
    assert reads_outside(compose_file, {"sub/a.yaml": WEB.encode()})


def test_a_reference_has_its_place_and_the_levels_that_it_goes_up() -> None:
    files = {"sub/a.yaml": _services(a="extends: {file: ../../x.yaml, service: x}").encode()}
    reading = read("include: [sub/a.yaml]\nservices: {web: {env_file: [../../y.env, ../../../z.env]}}", files)
    found = [(reference.file, reference.key, reference.path, reference.levels_up) for reference in reading.references]
    assert found == [
        ("compose.yaml", "include", "sub/a.yaml", 0),
        ("sub/a.yaml", "services.a.extends.file", "../../x.yaml", 1),
        ("compose.yaml", "services.web.env_file", "../../y.env", 2),
        ("compose.yaml", "services.web.env_file", "../../../z.env", 3),
    ]


def _including(number: int) -> str:
    return "include: [" + ",".join(f"{other}.yaml" for other in range(number + 1, 12) for _ in range(3)) + "]\n"


@pytest.mark.parametrize(
    ("compose_file", "files"),
    [
        (_including(-1), {f"{number}.yaml": _including(number) for number in range(12)}),
        (
            "x0: &x0 {a: 1}\n"
            + "".join(f"x{n}: &x{n} {{<<: [{','.join([f'*x{n - 1}'] * 9)}]}}\n" for n in range(1, 300))
            + "services: {<<: *x299, web: {<<: *x299}}",
            {},
        ),
        (
            "services: {" + "".join(f"a{n}: {{env_file: [{n}.env, big.env]}}," for n in range(5000)) + "}",
            {"big.env": "A=$B\n" * 200_000} | {f"{n}.env": "" for n in range(900)},
        ),
        ("services: {" + "".join(f"a{n}: {{extends: a{n + 1}}}," for n in range(20_000)) + "}", {}),
        (
            "services: {" + "".join(f"a{n}: {{extends: {{file: b.yaml, service: a}}}}," for n in range(10_000)) + "}",
            {"b.yaml": "services: {" + "".join(f"b{n}: {{image: $A{n}}}," for n in range(20_000)) + "}"},
        ),
        ("x: [" + "a," * 500_000 + "]", {}),
        ("include: [" + "a.yaml," * 100_000 + "]", {"a.yaml": "x: $A"}),
    ],
    ids=["includes", "merge keys", "env files", "extends", "extended file", "nodes", "one include"],
)
def test_no_package_takes_long_to_read(compose_file: str, files: dict[str, str]) -> None:
    began = time.thread_time()
    reading = read(compose_file, {path: content.encode() for path, content in files.items()})
    assert time.thread_time() - began < 20  # seconds of a slow processor under coverage
    assert len(reading.requirements) <= 1000
