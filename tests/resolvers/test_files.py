"""What a file of a package may be, and which bytes come of it."""

import base64
import time
from dataclasses import replace
from itertools import islice, product
from string import ascii_letters

import pytest

from resolvers import files
from resolvers.files import DecodedFile, NewFile
from resolvers.rules import Check
from tests.support.attacks import LONG, PATHS, TEMPLATES, UNPRINTABLE, UNSTORABLE, short

EVERY_BYTE = bytes(range(256))
FORMATTED = ("a\u202eb", "a\u2066b", "a\u200bb", "a\ufeffb", "a\U000e0041b")  # unprintable, but no control characters


def decode(*given: NewFile) -> tuple[list[DecodedFile], Check]:
    check = Check()
    return files.decode(check, "files", given), check


def codes(*given: NewFile) -> list[str]:
    """The codes of the problems of these files."""
    return [problem.code for problem in decode(*given)[1].problems]


def messages(*given: NewFile) -> list[str]:
    return [problem.message for problem in decode(*given)[1].problems]


def test_text_and_base64_become_bytes() -> None:
    decoded, check = decode(
        NewFile("text", content="ü\r\n\0"),
        NewFile("empty", content=""),
        NewFile("binary", base64=base64.b64encode(EVERY_BYTE).decode(), mode="755", only_if_missing=True),
        NewFile("nothing", base64="", mode="0400"),
    )
    assert check.problems == []
    assert decoded == [
        DecodedFile("text", "ü\r\n\0".encode(), 0o644, False),
        DecodedFile("empty", b"", 0o644, False),
        DecodedFile("binary", EVERY_BYTE, 0o755, True),
        DecodedFile("nothing", b"", 0o400, False),
    ]


@pytest.mark.parametrize(
    "path",
    [
        "a",
        ".hidden",
        "a/b/c.conf",
        "nginx.conf.d/10-a b,c=d+e@f.conf",
        "...",
        "sub/.env",
        "sub/compose.yaml",
        "compose.override.yaml",
        "compose.yml",
        "docker-compose.yaml",
        "app/[id].ts",
        "(group)/Load (all).json",
        "naïve ☃.txt",
        "-rf",
        "a/-rf",
        " a ",
        "a:b",
        "$x",
        "'q'",
        '"q"',
        "*?",
        "~/x",
        "x" * 255,
        "☃" * 85,
        "/".join(["x" * 255] * 4),
        *FORMATTED,
        *TEMPLATES,
    ],
    ids=short,
)
def test_a_file_has_a_path_inside_the_project(path: str) -> None:
    decoded, check = decode(NewFile(path, content=""))
    assert check.problems == []
    assert [file.path for file in decoded] == [path]


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("", "must not have empty names or '.'"),
        (".", "must not have empty names or '.'"),
        ("./a", "must not have empty names or '.'"),
        ("a/./b", "must not have empty names or '.'"),
        ("a//b", "must not have empty names or '.'"),
        ("a/", "must not have empty names or '.'"),
        ("/", "must be relative"),
        ("/etc/passwd", "must be relative"),
        ("..", "must not lead out of the project"),
        ("a/..", "must not lead out of the project"),
        ("a\\b", "must not have backslashes, control characters or line separators"),
        ("a\u2028b", "must not have backslashes, control characters or line separators"),
        ("a\ud800b", "must not have half surrogate pairs"),
        ("compose.yaml", "is written by daos itself; give it in composeFile"),
        (".env", "is written by daos itself; give it in variables"),
        ("x" * 256, "must not have names of more than 255 bytes"),
        ("☃" * 86, "must not have names of more than 255 bytes"),
        ("/".join(["x" * 255] * 4) + "/", "must not have empty names"),
        ("/".join("x" * 513), "must have at most 1024 bytes"),
    ],
    ids=short,
)
def test_the_problem_of_a_path_names_the_file_and_the_rule(path: str, why: str) -> None:
    _, check = decode(NewFile("fine", content=""), NewFile(path, content=""))
    [problem] = check.problems
    assert (problem.path, problem.code) == (("files", 1, "path"), "PATH")
    assert problem.message.startswith(f"files.1.path '{path[:100]}' {why}")


@pytest.mark.parametrize("path", [LONG, *PATHS[:-1], *(bad for bad in UNPRINTABLE if bad not in FORMATTED)], ids=short)
def test_another_path_is_refused(path: str) -> None:
    assert codes(NewFile(path, content="")) == ["PATH"]


@pytest.mark.parametrize("paths", [["a", "a"], ["a", "a/b"], ["a/b/c", "a/b"], ["compose.yaml/a"], [".env/a/b"]])
def test_two_files_do_not_share_a_path(paths: list[str]) -> None:
    assert codes(*(NewFile(path, content="") for path in paths)) == ["PATH"]


@pytest.mark.parametrize("paths", [["a", "A"], ["é", "e\u0301"], ["a", "a "], ["a.b", "a/b"]])
def test_names_that_differ_in_anything_are_two_names(paths: list[str]) -> None:
    decoded, check = decode(*(NewFile(path, content="") for path in paths))
    assert check.problems == []
    assert [file.path for file in decoded] == paths


@pytest.mark.parametrize(
    "file", [NewFile("a"), NewFile("a", content="", base64=""), NewFile("a", content="x", base64="eA==")], ids=short
)
def test_a_file_has_exactly_one_of_content_and_base64(file: NewFile) -> None:
    assert codes(file) == ["CONTENT"]
    assert messages(file)[0].startswith("files.0 must have exactly one of content and base64: ")


@pytest.mark.parametrize(
    "text",
    ["=", "A", "QQ", "QQ=", "QQ==\n", "Q Q==", "QQ==QQ==", "QQ===", "Q-_=", "ü", "\ud800", "\0", "hunter2!"],
    ids=short,
)
def test_base64_is_that_of_rfc_4648(text: str) -> None:
    assert codes(NewFile("a", base64=text)) == ["BASE64"]
    [message] = messages(NewFile("a", content=""), NewFile("b", base64=text))
    assert message.startswith("files.1.base64 must be Base64 as in RFC 4648, ")
    assert "hunter2" not in message


@pytest.mark.parametrize("text", [bad for bad in UNSTORABLE if "\0" not in bad], ids=short)
def test_text_that_is_no_utf_8_is_refused(text: str) -> None:
    assert codes(NewFile("a", content=text)) == ["CHARACTER"]
    assert "send the bytes in base64" in messages(NewFile("a", content=text))[0]


@pytest.mark.parametrize(
    ("mode", "bits"),
    [("0644", 0o644), ("644", 0o644), ("0755", 0o755), ("0600", 0o600), ("777", 0o777), ("400", 0o400)],
)
def test_a_mode_is_octal(mode: str, bits: int) -> None:
    decoded, check = decode(NewFile("a", content="", mode=mode))
    assert check.problems == []
    assert decoded[0].mode == bits


@pytest.mark.parametrize(
    ("mode", "why"),
    [
        *((mode, "three or four octal digits") for mode in ("", "0", "64", "0o644", "u+x", "0888", "00644", "-644")),
        *((mode, "three or four octal digits") for mode in ("644\n", " 644", "٦٤٤", "\ud800", LONG)),
        *((mode, "setuid, setgid or sticky") for mode in ("1777", "2755", "4755", "7777")),
        *((mode, "owner to read") for mode in ("000", "0000", "0277", "044")),
    ],
    ids=short,
)
def test_another_mode_is_refused(mode: str, why: str) -> None:
    assert codes(NewFile("a", content="", mode=mode)) == ["MODE"]
    [message] = messages(NewFile("a", content="", mode=mode))
    assert message.startswith("files.0.mode must ")
    assert why in message


def test_all_problems_of_all_files_are_there_at_once() -> None:
    _, check = decode(
        NewFile("../c", content="\ud800", mode="9"), NewFile("b", content=""), NewFile("b", base64="?"), NewFile("d")
    )
    assert [(problem.path, problem.code) for problem in check.problems] == [
        (("files", 0, "path"), "PATH"),
        (("files", 0, "content"), "CHARACTER"),
        (("files", 0, "mode"), "MODE"),
        (("files", 2, "path"), "PATH"),
        (("files", 2, "base64"), "BASE64"),
        (("files", 3), "CONTENT"),
    ]


@pytest.mark.parametrize("character", ["x", "ü", "😀"])
def test_the_size_of_files_is_counted_together_in_bytes(character: str) -> None:
    half = character * (files.MAX_SIZE // 2 // len(character.encode()))
    assert codes(NewFile("a", content=half), NewFile("b", content=half)) == []
    assert codes(NewFile("a", content=half), NewFile("b", content=half + character)) == ["TOO_LONG"]


def test_the_size_of_base64_is_that_of_its_bytes() -> None:
    full = base64.b64encode(bytes(files.MAX_SIZE)).decode()
    assert codes(NewFile("a", base64=full)) == []
    assert codes(NewFile("a", base64=full), NewFile("b", base64="AA==")) == ["TOO_LONG"]


def test_the_number_of_files_is_limited() -> None:
    many = [NewFile(str(number), content="") for number in range(1001)]
    assert codes(*many[:-1]) == []
    assert codes(*many) == ["TOO_MANY"]


def test_what_makes_a_file_another_one_makes_a_request_another_one() -> None:
    plain = NewFile("a", content="eA==")
    others = [
        replace(plain, path="b"),
        replace(plain, content="x"),
        replace(plain, content=None, base64="eA=="),
        replace(plain, mode="0755"),
        replace(plain, only_if_missing=True),
    ]
    assert len({plain.given, *(file.given for file in others)}) == 1 + len(others)
    assert plain.given == ("a", "eA==")  # as before there was anything but text


def test_no_list_of_files_takes_long_to_check() -> None:
    names = islice(("".join(letters) for letters in product(ascii_letters, repeat=4)), 1000)
    deep = [NewFile(f"{name}{'/x' * 500}", content="x") for name in names]
    began = time.thread_time()
    assert codes(*deep) == []
    assert time.thread_time() - began < 5  # seconds of a slow processor under coverage; else it takes a tenth of one
