"""Each rule: what it accepts, what it refuses, and that it does so at once, whatever it is given."""

from collections.abc import Callable, Iterable
from itertools import product
from string import ascii_letters

import pytest

from resolvers.errors import InvalidInput, Problem
from resolvers.rules import Check
from tests.factories import COMPOSE_FILE
from tests.support.attacks import LONG, PATHS, TEMPLATES, UNPRINTABLE, UNSTORABLE, short

MEBIBYTE = 1024 * 1024


def _codes(check: Callable[[Check], None]) -> list[str]:
    """The codes of the problems that `check` finds."""
    found = Check()
    check(found)
    return [problem.code for problem in found.problems]


def test_all_problems_are_raised_at_once() -> None:
    check = Check()
    check.name("name", "")
    check.port("port", 0)
    check.user("user", "Root")
    with pytest.raises(InvalidInput, match=r"\AThe input breaks 3 rules\.\Z") as refused:
        check.done()
    assert [problem.path for problem in refused.value.problems] == [("name",), ("port",), ("user",)]


def test_one_problem_is_the_message() -> None:
    check = Check()
    check.port("port", 65536)
    with pytest.raises(InvalidInput, match=r"\Aport must be from 1 to 65535\.\Z") as refused:
        check.done()
    assert refused.value.problems == [Problem(("port",), "RANGE", "port must be from 1 to 65535.")]


def test_no_problem_raises_nothing() -> None:
    Check().done()


@pytest.mark.parametrize(
    "value", ["a", "x" * 100, "Über 9000 · 日本 🚀", "a  b", "😀" * 100, *TEMPLATES, *PATHS], ids=short
)
def test_a_name_is_one_printable_line(value: str) -> None:
    assert _codes(lambda check: check.name("name", value)) == []


@pytest.mark.parametrize(
    ("value", "codes"),
    [
        ("", ["EMPTY"]),
        ("   ", ["EMPTY"]),
        ("\u3000", ["EMPTY"]),
        (" a", ["BLANKS"]),
        ("a\u00a0", ["BLANKS"]),
        ("x" * 101, ["TOO_LONG"]),
        (LONG, ["TOO_LONG"]),
        (" \0" + "x" * 100, ["BLANKS", "TOO_LONG", "CHARACTER"]),
        *((value, ["CHARACTER"]) for value in UNPRINTABLE),
    ],
    ids=short,
)
def test_another_name_is_refused(value: str, codes: list[str]) -> None:
    assert _codes(lambda check: check.name("name", value)) == codes


@pytest.mark.parametrize(
    "value",
    [
        "localhost",
        "example.com",
        "EXAMPLE.com",
        "a-b.c--d.example",
        "xn--bcher-kva.example",
        "3com.com",
        "host1",
        "x" * 63,
        ".".join(["x" * 63] * 3 + ["x" * 61]),
        "192.0.2.1",
        "127.0.0.1",
        "::1",
        "2001:db8::7",
        "::ffff:192.0.2.1",
        "169.254.169.254",  # whose network it is, is the operator's business
    ],
)
def test_an_address_is_a_dns_name_or_an_ip_address(value: str) -> None:
    assert _codes(lambda check: check.address("address", value)) == []


@pytest.mark.parametrize(
    "value",
    [
        "",
        " ",
        ".",
        "a..b",
        "example.com.",
        "-x",
        "x-",
        "a.-b",
        "a b",
        "h;id",
        "host\n",
        "\nhost",
        "a_b",
        "[::1]",
        "[::1]%25x",
        "fe80::1%eth0",
        "fe80::1%{{ 1 }}",
        "1.2.3",
        "1.2.3.4.5",
        "256.1.1.1",
        "4294967296",
        "host:22",
        "user@host",
        "192.0.2.1/24",
        "bücher.example",
        "\uff11\uff12\uff17.0.0.1",
        "x" * 64,
        ".".join(["x" * 63] * 4),
        LONG,
        "1." * 50_000,
        *TEMPLATES,
        *PATHS[:4],
        *UNPRINTABLE,
    ],
    ids=short,
)
def test_another_address_is_refused(value: str) -> None:
    assert _codes(lambda check: check.address("address", value)) == ["ADDRESS"]


@pytest.mark.parametrize(
    ("value", "codes"), [(0, ["RANGE"]), (1, []), (65535, []), (65536, ["RANGE"]), (-22, ["RANGE"])]
)
def test_a_port_is_one_of_tcp(value: int, codes: list[str]) -> None:
    assert _codes(lambda check: check.port("port", value)) == codes


@pytest.mark.parametrize("value", ["root", "_", "deploy-user", "a1_b", "x" * 32])
def test_a_user_is_a_posix_name(value: str) -> None:
    assert _codes(lambda check: check.user("user", value)) == []


@pytest.mark.parametrize(
    "value",
    [
        "",
        "Root",
        "1a",
        "-x",
        "x" * 33,
        "a b",
        "a.b",
        "root\n",
        "ü",
        "u -oProxyCommand=x",
        LONG,
        *TEMPLATES,
        *UNPRINTABLE,
    ],
    ids=short,
)
def test_another_user_is_refused(value: str) -> None:
    assert _codes(lambda check: check.user("user", value)) == ["USER"]


@pytest.mark.parametrize("value", ["/root/.ssh/id_ed25519", "/a b/ü", "/", "/...", "/x" * 512, "/$(id)", "/{{ 1 }}"])
def test_a_key_path_is_absolute(value: str) -> None:
    assert _codes(lambda check: check.key_path("ssh_key_path", value)) == []


@pytest.mark.parametrize(
    "value",
    [
        "",
        "id_ed25519",
        "~/.ssh/id",
        "../../etc/shadow",
        "/a/../b",
        "/..",
        "/" + LONG,
        *("/" + bad for bad in UNPRINTABLE),
    ],
    ids=short,
)
def test_another_key_path_is_refused(value: str) -> None:
    assert _codes(lambda check: check.key_path("ssh_key_path", value)) == ["PATH"]


@pytest.mark.parametrize("value", ["a", "0", "my-app_2", "x" * 63])
def test_a_project_name_is_composes(value: str) -> None:
    assert _codes(lambda check: check.project_name("project_name", value)) == []


@pytest.mark.parametrize(
    "value",
    ["", "A", "-a", "_a", "a.b", "a b", "x" * 64, "a\n", "ä", LONG, *TEMPLATES, *PATHS, *UNPRINTABLE],
    ids=short,
)
def test_another_project_name_is_refused(value: str) -> None:
    assert _codes(lambda check: check.project_name("project_name", value)) == ["PROJECT_NAME"]


@pytest.mark.parametrize(
    "name",
    [
        *("A", "_", "a1_B", "x" * 128, "docker_host", "home", "DOCKER_SOCKET_LOCATION", "DOCKER_TAG", "COMPOSE_TAG"),
        *("COMPOSE_PROFILES", "COMPOSE_REMOVE_ORPHANS", "COMPOSE_PARALLEL_LIMIT", "COMPOSE_PATH_SEPARATOR"),
        *("COMPOSE_COMPATIBILITY", "DOCKER_API_VERSION", "DOCKER_BUILDKIT", "DOCKER_DEFAULT_PLATFORM"),
    ],
)
def test_a_variable_has_a_name_of_the_shell(name: str) -> None:
    assert _codes(lambda check: check.variables("variables", [(name, "")])) == []


@pytest.mark.parametrize(
    "name",
    [
        "",
        "1A",
        "A-B",
        "A B",
        "A=B",
        "A\n",
        "Ä",
        "x" * 129,
        *("HOME", "PATH", "PWD", "DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG", "DOCKER_CERT_PATH"),
        *("DOCKER_TLS", "DOCKER_TLS_VERIFY", "COMPOSE_FILE", "COMPOSE_PROJECT_NAME", "COMPOSE_ENV_FILES"),
        "COMPOSE_DISABLE_ENV_FILE",
        LONG,
        *TEMPLATES,
        *PATHS,
        *UNPRINTABLE,
    ],
    ids=short,
)
def test_another_variable_is_refused(name: str) -> None:
    assert _codes(lambda check: check.variables("variables", [(name, "")])) == ["VARIABLE"]


@pytest.mark.parametrize(
    "value", ["", "a\r\nb", "'\"\\$`#", "\x1b[31m", "x" * 64 * 1024, *TEMPLATES, *UNPRINTABLE[3:]], ids=short
)
def test_a_variable_may_have_any_text(value: str) -> None:
    assert _codes(lambda check: check.variables("variables", [("A", value)])) == []


@pytest.mark.parametrize(
    ("value", "code"),
    [("x" * (64 * 1024 + 1), "TOO_LONG"), ("ü" * 40_000, "TOO_LONG"), *((bad, "CHARACTER") for bad in UNSTORABLE)],
    ids=short,
)
def test_a_variable_that_cannot_be_kept_is_refused(value: str, code: str) -> None:
    assert _codes(lambda check: check.variables("variables", [("A", value)])) == [code]


@pytest.mark.parametrize(
    ("name", "why", "way_out"),
    [
        ("HOME", "the environment of the process on the host overrides it", "choose another name"),
        ("PWD", "the environment of the process on the host overrides it", "choose another name"),
        ("DOCKER_HOST", "the login's environment on the host selects the Docker daemon", "set it there"),
        ("COMPOSE_FILE", "daos passes the Compose files itself", "compose.override.yaml"),
        ("COMPOSE_PROJECT_NAME", "daos passes the project name itself", "set projectName"),
        ("COMPOSE_ENV_FILES", "daos passes the file with the deployment's variables itself", "set the variables here"),
        ("COMPOSE_DISABLE_ENV_FILE", "contradicts `.env`", "remove it"),
    ],
)
def test_the_refusal_of_a_variable_names_it_the_reason_and_the_way_out(name: str, why: str, way_out: str) -> None:
    check = Check()
    check.variables("variables", [("A", ""), (name, "hunter2")])
    [problem] = check.problems
    assert (problem.path, problem.code) == (("variables", 1, "name"), "VARIABLE")
    assert problem.message.startswith(f"variables.1.name '{name}' ")
    assert why in problem.message
    assert way_out in problem.message.partition(";")[2]
    assert "hunter2" not in problem.message


@pytest.mark.parametrize(
    ("name", "harmless", "harmful", "way_out"),
    [
        ("COMPOSE_PROFILES", ["", "*", "fast,disk", "a-b.c"], ["${A:-fast},disk", "$A", "a$$b"], "list the names"),
        (
            "COMPOSE_IGNORE_ORPHANS",
            ["", "0", "false", "False", "no"],
            ["1", "true", "TRUE", "y"],
            "remove the variable",
        ),
        ("COMPOSE_REMOVE_ORPHANS", ["", "1", "true", "yes"], ["0", "false", " No "], "remove the variable"),
        ("PROFILES", ["$A", "0", "1"], [], ""),
    ],
)
def test_a_variable_of_compose_is_refused_only_with_a_value_that_does_harm(
    name: str, harmless: list[str], harmful: list[str], way_out: str
) -> None:
    for value in harmless:
        check = Check()
        check.variables("variables", [(name, value)])
        assert check.problems == []
    for value in harmful:
        check = Check()
        check.variables("variables", [(name, value)])
        [problem] = check.problems
        assert (problem.path, problem.code) == (("variables", 0, "value"), "VARIABLE")
        assert problem.message.startswith(f"variables.0.value of {name} must not ")
        assert way_out in problem.message.partition(";")[2]


def test_a_variable_is_given_once() -> None:
    assert _codes(lambda check: check.variables("variables", [("A", "1"), ("a", "2")])) == []
    assert _codes(lambda check: check.variables("variables", [("A", "1"), ("A", "2")])) == ["VARIABLE"]


def test_the_number_of_variables_is_limited() -> None:
    assert _codes(lambda check: check.variables("variables", [(f"A{n}", "") for n in range(2000)])) == []
    assert _codes(lambda check: check.variables("variables", [(f"A{n}", "") for n in range(2001)])) == ["TOO_MANY"]


@pytest.mark.parametrize("registry", ["r.example", "r.example:5000", "localhost:1", "127.0.0.1:65535", "a-b.c"])
def test_a_registry_is_a_host_with_or_without_a_port(registry: str) -> None:
    assert _codes(lambda check: check.registry_logins("logins", [(registry, "me", "p")])) == []


@pytest.mark.parametrize(
    "registry",
    [
        *("", " ", "-r", "r.example:", "r.example:0", "r.example:65536", "r.example:5000:5000", "r.example:٣"),
        *("https://r.example", "r.example/x", "me@r.example", "R.example", "[::1]:5000", "::1", "r_x", "a b"),
        *(*UNPRINTABLE, *UNSTORABLE, *TEMPLATES, LONG),
    ],
    ids=short,
)
def test_another_registry_is_refused(registry: str) -> None:
    assert _codes(lambda check: check.registry_logins("logins", [(registry, "me", "p")])) == ["REGISTRY"]


@pytest.mark.parametrize("username", ["", " me", "me ", "x" * 256, "a\nb", *UNPRINTABLE], ids=short)
def test_a_username_is_printable(username: str) -> None:
    assert _codes(lambda check: check.registry_logins("logins", [("r.example", username, "p")])) == ["USERNAME"]


def test_a_password_is_any_text_of_some_length() -> None:
    for password, codes in (("", ["EMPTY"]), ("a\0", ["CHARACTER"]), ("x" * 16_385, ["TOO_LONG"]), ("a\nü", [])):
        check = Check()
        check.registry_logins("logins", [("r.example", "me", password)])
        assert [problem.code for problem in check.problems] == codes


def test_the_number_of_logins_is_limited_and_each_registry_is_there_once() -> None:
    logins = [(f"r{number}.example", "me", "p") for number in range(21)]
    assert _codes(lambda check: check.registry_logins("logins", logins[:20])) == []
    assert _codes(lambda check: check.registry_logins("logins", logins)) == ["TOO_MANY"]
    assert _codes(lambda check: check.registry_logins("logins", logins[:1] * 2)) == ["REGISTRY"]


def test_a_problem_of_a_variable_does_not_tell_its_value() -> None:
    check = Check()
    check.variables("variables", [("A", "hunter2\0"), ("B", "hunter2" * 10_000)])
    assert len(check.problems) == 2
    assert "hunter2" not in str(check.problems)


@pytest.mark.parametrize(
    ("text", "code"),
    [*((bad, "CHARACTER") for bad in UNSTORABLE), ("#" + "ü" * (MEBIBYTE // 2), "TOO_LONG")],
    ids=short,
)
def test_a_compose_file_that_cannot_be_kept_is_refused(text: str, code: str) -> None:
    assert _codes(lambda check: check.compose_file("compose_file", text)) == [code]


def test_a_compose_file_may_have_one_mebibyte() -> None:
    text = COMPOSE_FILE + "#" * (MEBIBYTE - len(COMPOSE_FILE))
    assert _codes(lambda check: check.compose_file("compose_file", text)) == []
    assert _codes(lambda check: check.compose_file("compose_file", text + "#")) == ["TOO_LONG"]


def _names() -> Iterable[str]:
    return ("".join(letters) for letters in product(ascii_letters, repeat=4))
