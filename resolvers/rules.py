"""The rules for input.  Pure: each check adds the problems that it finds, and all of them are raised together."""

import ipaddress
import re
import unicodedata
from collections.abc import Sequence
from datetime import UTC, datetime

from resolvers import compose_file
from resolvers.errors import InvalidInput, Problem
from runner.ssh.known_hosts import FINGERPRINT, BadLine, HostKey, names_of, read

MAX_NAME = 100  # characters
MAX_IDEMPOTENCY_KEY = 255  # characters
MAX_PRIORITY = 100  # the minimum is the negative of it
YEARS = range(2000, 3000)  # databases and drivers have different limits of the calendar
MAX_COMPOSE_FILE = 1024 * 1024  # bytes
MAX_KNOWN_HOSTS = 16 * 1024  # bytes
MAX_LABELS = 20  # of a host, or of a token
MAX_PATH = 1024  # characters
MAX_VARIABLES = 2000
MAX_VARIABLE = 64 * 1024  # bytes of one value
MAX_LOGINS = 20  # of a package
MAX_USERNAME = 255  # characters
MAX_PASSWORD = 16 * 1024  # bytes; for some registries it is a whole key file

DNS_LABEL = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)")
LINE_END_OR_TAB = re.compile(r"\r?\n|\t")
USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
UNSTORABLE = re.compile("[\0\ud800-\udfff]")
LABEL = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
PROJECT_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
# Variables that have no effect or do harm, each with the reason and what to do instead.  Any other name is allowed,
# also one that begins with COMPOSE_ or DOCKER_.  Checked against Compose 2.26.1 and 5.6.1, which daos runs with
# `--file`, `--env-file`, `--project-name`, and an environment of its own, which overrides `.env`.
_OF_THE_PROCESS = "has no effect, because the environment of the process on the host overrides it; choose another name"
_OF_THE_DAEMON = (
    "has no effect, because the login's environment on the host selects the Docker daemon; set it there, or choose "
    "another name"
)
HARMFUL_VARIABLES = {
    **dict.fromkeys(("HOME", "PATH", "PWD"), _OF_THE_PROCESS),
    **dict.fromkeys(
        ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG", "DOCKER_CERT_PATH", "DOCKER_TLS", "DOCKER_TLS_VERIFY"),
        _OF_THE_DAEMON,
    ),
    "COMPOSE_FILE": "has no effect, because daos passes the Compose files itself; use `include`, or a file of the "
    "package named compose.override.yaml",
    "COMPOSE_PROJECT_NAME": "has no effect, because daos passes the project name itself; set projectName of the "
    "deployment",
    "COMPOSE_ENV_FILES": "has no effect, because daos passes the file with the deployment's variables itself; set the "
    "variables here",
    "COMPOSE_DISABLE_ENV_FILE": "contradicts `.env`, which has the deployment's variables; remove it",
}
FALSE = {"0", "f", "false", "n", "no", "off"}


class Check:
    """Collects the problems of one input."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def add(self, path: str | tuple[str | int, ...], code: str, message: str) -> None:
        """Add the problem that the value at `path` violates a rule."""
        self.problems.append(Problem((path,) if isinstance(path, str) else path, code, message))

    def done(self) -> None:
        """Raise InvalidInput with all problems if there are any."""
        if self.problems:
            raise InvalidInput(self.problems)

    def name(self, argument: str, value: str) -> None:
        """Check a name for people: one printable line."""
        if not value.strip():
            self.add(argument, "EMPTY", f"{argument} must not be empty.")
        elif value != value.strip():
            self.add(argument, "BLANKS", f"{argument} must not begin or end with a blank.")
        if len(value) > MAX_NAME:
            self.add(argument, "TOO_LONG", f"{argument} must have at most {MAX_NAME} characters.")
        if not _is_printable(value[:MAX_NAME]):
            self.add(argument, "CHARACTER", f"{argument} must not have control characters.")

    def idempotency_key(self, argument: str, value: str) -> None:
        """Check a client's name for a request."""
        if not 1 <= len(value) <= MAX_IDEMPOTENCY_KEY or not _is_printable(value):
            rule = f"must have from 1 to {MAX_IDEMPOTENCY_KEY} printable characters"
            self.add(argument, "CHARACTERS", f"{argument} {rule}.")

    def address(self, argument: str, value: str) -> None:
        """Check a DNS name or an IP address."""
        if not _is_address(value):
            rule = "must be only a DNS name or an IP address: user and port are arguments of their own"
            self.add(argument, "ADDRESS", f"{argument} {rule}.")

    def port(self, argument: str, value: int) -> None:
        if not 1 <= value <= 65535:  # noqa: PLR2004 - TCP's limit
            self.add(argument, "RANGE", f"{argument} must be from 1 to 65535.")

    def priority(self, argument: str, value: int) -> None:
        if abs(value) > MAX_PRIORITY:
            self.add(argument, "RANGE", f"{argument} must be from -{MAX_PRIORITY} to {MAX_PRIORITY}.")

    def moment(self, argument: str, value: datetime) -> None:
        # Not relative to now: a request that is repeated later must not become invalid.
        if value.astimezone(UTC).year not in YEARS:
            self.add(argument, "RANGE", f"{argument} must be in the years {YEARS[0]} to {YEARS[-1]}.")

    def user(self, argument: str, value: str) -> None:
        if not USER.fullmatch(value):
            rule = "must be a POSIX user name: a-z, 0-9, _ and -, beginning with a letter or _, at most 32 characters"
            self.add(argument, "USER", f"{argument} {rule}.")

    def key_path(self, argument: str, value: str) -> None:
        """Check an absolute path; whether it is a key is checked when a run starts."""
        parts = value.split("/")
        if not value.startswith("/") or ".." in parts or len(value) > MAX_PATH or not _is_printable(value):
            rule = (
                f"must be an absolute path on the server without '..', of at most {MAX_PATH} printable characters; "
                "'~' is not expanded"
            )
            self.add(argument, "PATH", f"{argument} {rule}.")

    def host_keys(self, argument: str, value: str, address: str, port: int) -> list[HostKey]:
        """Check and return the keys in lines of known_hosts, or public keys, for the host at this address and port."""
        if not self.text(argument, value, MAX_KNOWN_HOSTS) or not _is_address(address):
            return []  # an invalid address is a separate problem
        if not _is_printable(LINE_END_OR_TAB.sub(" ", value)):
            self.add(argument, "CHARACTER", f"{argument} must not have control characters.")
            return []
        try:
            return read(value, names_of(address, port))
        except BadLine as problem:
            self.add(argument, problem.code, f"{argument}: {problem}.")
            return []

    def fingerprint(self, argument: str, value: str) -> None:
        if not FINGERPRINT.fullmatch(value):
            self.add(argument, "FINGERPRINT", f"{argument} must be SHA256: and 43 characters, as ssh-keygen -l has it.")

    def labels(self, argument: str, values: Sequence[str]) -> None:
        """Check labels of hosts."""
        if len(values) > MAX_LABELS:
            self.add(argument, "TOO_MANY", f"{argument} must have at most {MAX_LABELS} labels.")
        for number, value in enumerate(values[:MAX_LABELS]):
            if not LABEL.fullmatch(value):
                rule = "must have only a-z, 0-9, ., _ and -, begin with a letter or digit, and at most 63 characters"
                self.add((argument, number), "LABEL", f"{argument} {rule}.")

    def project_name(self, argument: str, value: str) -> None:
        if not PROJECT_NAME.fullmatch(value):
            rule = "must have only a-z, 0-9, _ and -, begin with a letter or digit, and have at most 63 characters"
            self.add(argument, "PROJECT_NAME", f"{argument} {rule}.")

    def text(self, path: str | tuple[str | int, ...], value: str, limit: int) -> bool:
        """Check text of at most `limit` bytes that can be stored and sent as UTF-8; return whether it is valid."""
        argument = _argument(path)
        if UNSTORABLE.search(value):
            self.add(path, "CHARACTER", f"{argument} must not have NUL or half surrogate pairs.")
            return False
        size = len(value.encode())
        if size > limit:
            self.add(path, "TOO_LONG", f"{argument} must have at most {limit} bytes, and has {size}.")
            return False
        return True

    def compose_file(self, argument: str, value: str, *, has_override: bool = False) -> None:
        """Check for valid YAML with something to deploy, here or in an override file; Compose checks the rest."""
        if self.text(argument, value, MAX_COMPOSE_FILE):
            problem = compose_file.problem_of(value, has_override=has_override)
            if problem is not None:
                self.add(argument, "COMPOSE", f"{argument} {problem}.")

    def registry_logins(self, argument: str, logins: Sequence[tuple[str, str, str]]) -> None:
        """Check the registries, usernames, and passwords of a package."""
        if len(logins) > MAX_LOGINS:
            self.add(argument, "TOO_MANY", f"{argument} must have at most {MAX_LOGINS} logins.")
            return
        registries: set[str] = set()
        for position, (registry, username, password) in enumerate(logins):
            problem = _registry_problem(registry, registries)
            if problem is not None:
                self.add(
                    (argument, position, "registry"), "REGISTRY", f"{argument}: '{registry[:MAX_NAME]}' {problem}."
                )
            if not 1 <= len(username) <= MAX_USERNAME or username != username.strip() or not _is_printable(username):
                rule = f"must have from 1 to {MAX_USERNAME} printable characters, without blanks at either end"
                self.add((argument, position, "username"), "USERNAME", f"{argument}.{position}.username {rule}.")
            if not password:
                self.add(
                    (argument, position, "password"), "EMPTY", f"{argument}.{position}.password must not be empty."
                )
            self.text((argument, position, "password"), password, MAX_PASSWORD)
            registries.add(registry)

    def variables(self, argument: str, variables: Sequence[tuple[str, str]]) -> None:
        """Check the names and values of a deployment's variables."""
        if len(variables) > MAX_VARIABLES:
            self.add(argument, "TOO_MANY", f"{argument} must have at most {MAX_VARIABLES} variables.")
            return
        names: set[str] = set()
        for position, (name, value) in enumerate(variables):
            problem = _variable_problem(name, names)
            if problem is not None:
                shown = f"{argument}.{position}.name '{name[:MAX_NAME]}'"
                self.add((argument, position, "name"), "VARIABLE", f"{shown} {problem}.")
            problem = _value_problem(name, value)
            if problem is not None:
                self.add((argument, position, "value"), "VARIABLE", f"{argument}.{position}.value of {name} {problem}.")
            self.text((argument, position, "value"), value, MAX_VARIABLE)
            names.add(name)


def _argument(path: str | tuple[str | int, ...]) -> str:
    return path if isinstance(path, str) else ".".join(str(part) for part in path)


def _is_printable(value: str) -> bool:
    """Return whether it has no control or formatting characters, line separators, or half surrogate pairs."""
    return not any(unicodedata.category(character) in {"Cc", "Cf", "Cs", "Zl", "Zp"} for character in value)


def _is_address(value: str) -> bool:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        labels = value.split(".")
        # A last label that consists of digits is a mistyped IP address, and some resolvers treat it as one.
        named = not labels[-1].isdecimal()
        return named and len(value) <= 253 and all(DNS_LABEL.fullmatch(label) for label in labels)  # noqa: PLR2004
    return "%" not in value


def _registry_problem(registry: str, others: set[str]) -> str | None:
    if registry in others:
        return "is given twice"
    host, colon, port = registry.partition(":")
    is_port = port.isascii() and port.isdecimal() and len(port) <= 5 and 1 <= int(port) <= 65535  # noqa: PLR2004
    if not _is_address(host) or host != host.lower() or (colon and not is_port):
        return "must be a host name or IPv4 address in lower case, with an optional port: no scheme, no path"
    return None


def _variable_problem(name: str, others: set[str]) -> str | None:
    if not VARIABLE_NAME.fullmatch(name):
        return "must be letters, digits and _, must not begin with a digit, and have at most 128 characters"
    if name in others:
        return "is given twice; set each variable once"
    return HARMFUL_VARIABLES.get(name)


def _value_problem(name: str, value: str) -> str | None:
    """Return what is wrong with the value of a variable with a valid name, to be put after its name."""
    is_false = value.strip().lower() in FALSE
    if name == "COMPOSE_PROFILES" and "$" in value:
        return "must not have '$', because values are literal and nothing is expanded; list the names of the profiles"
    if name == "COMPOSE_IGNORE_ORPHANS" and value and not is_false:
        return "must not be true, because Compose fails with it when daos removes orphans; remove the variable"
    if name == "COMPOSE_REMOVE_ORPHANS" and is_false:
        return "must not be false, because daos always removes orphans; remove the variable"
    return None
