"""The cases of tests/cases: what a folder describes, and the shell of its commands.

Playing them is in tests/e2e/test_cases.py.
"""

import base64
import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CASES = Path(__file__).parents[1] / "cases"

STEP_KEYS = {"how", "variables", "between", "expect", "check"}
KEYS = {"id", "what", "variables", "many", "expect", "check", "steps"}
KEYS |= {"modes", "keep", "server", "before", "after", "env_raw"}
HOWS = {"new package", "same package", "run again", "other project", "down"}
# Those that need a deployment; the others create one.
ON_A_DEPLOYMENT = {"run again", "down"}

FUNCTIONS = """
cid() { docker ps -aq --no-trunc -f label=com.docker.compose.project=$PROJECT -f label=com.docker.compose.service=$1; }
run_in() { local s=$1; shift; docker exec $(cid $s) "$@"; }
"""
COMMAND_TIMEOUT = 60.0  # seconds


class Malformed(Exception):
    """The folder is not a case."""


@dataclass(frozen=True)
class Check:
    """A shell command that exits with 0 when what `description` says is true."""

    description: str
    command: str


@dataclass(frozen=True)
class Step:
    """What is done, and the results that are correct: `SUCCESS`, `FAILED:<reason>`, `refused:<code>`.

    The first step of a case has an empty `how`.  `variables` is None where the step has none of its own.
    """

    how: str
    expect: Sequence[str]
    checks: Sequence[Check] = ()
    between: Sequence[str] = ()
    variables: Sequence[Mapping[str, object]] | None = None


@dataclass(frozen=True)
class Package:
    """A compose file and the input of its further files."""

    compose_file: str
    files: Sequence[Mapping[str, object]]


@dataclass(frozen=True)
class Case:
    """A folder of tests/cases.  `then` is the later version of the package; `env_raw` is the user's own `.env`."""

    name: str
    what: str
    package: Package
    then: Package | None
    variables: Sequence[Mapping[str, object]]
    steps: Sequence[Step]  # the first deployment is the first step
    server: Mapping[str, str] = field(default_factory=dict)
    before: Sequence[str] = ()
    after: Sequence[str] = ()
    env_raw: str | None = None


def case_names() -> list[str]:
    """The names of all cases, sorted."""
    return sorted(path.parent.name for path in CASES.glob("*/case.json"))


def read_case(directory: Path) -> Case:
    """What a folder describes.  Raises: Malformed, also for a key that is not in tests/cases/README.md."""
    given: dict[str, Any] = json.loads((directory / "case.json").read_text())
    _refuse_unknown(given, KEYS, directory.name)
    if given.get("id", directory.name) != directory.name:
        raise Malformed(f"{directory.name}: its id is {given['id']}")
    modes, keep = given.get("modes", {}), given.get("keep", [])
    later = directory / "then"
    package = _read_package(directory, modes, keep)
    then = _read_package(later, modes, keep) if later.is_dir() else None
    delivered = {file["path"] for version in (package, then) if version for file in version.files}
    if missing := ({*modes, *keep} - delivered):
        raise Malformed(f"{directory.name}: the package has no {', '.join(sorted(missing))}")
    steps = [_read_step({**step}, directory.name) for step in given.get("steps", [])]
    if then is None and any(step.how == "new package" for step in steps):
        raise Malformed(f"{directory.name}: a new package needs then/")
    first = _read_step({"how": "", "expect": given["expect"], "check": given.get("check", [])}, directory.name)
    return Case(
        name=directory.name,
        what=given["what"],
        package=package,
        then=then,
        variables=[*given.get("variables", []), *_numbered(*given.get("many", ["", 0]))],
        steps=[first, *steps],
        server=given.get("server", {}),
        before=given.get("before", []),
        after=given.get("after", []),
        env_raw=given.get("env_raw"),
    )


def _refuse_unknown(given: Mapping[str, Any], known: set[str], name: str) -> None:
    if unknown := set(given) - known:
        raise Malformed(f"{name}: unknown keys: {', '.join(sorted(unknown))}")


def _read_step(given: Mapping[str, Any], name: str) -> Step:
    _refuse_unknown(given, STEP_KEYS, name)
    if given["how"] not in HOWS | {""}:
        raise Malformed(f"{name}: there is no step '{given['how']}'")
    expect = [given["expect"]] if isinstance(given["expect"], str) else given["expect"]
    for result in expect:
        kind, _, detail = result.partition(":")
        if kind not in {"SUCCESS", "FAILED", "refused"} or (kind == "SUCCESS") == bool(detail):
            raise Malformed(f"{name}: no run ends with {result}")
    return Step(
        how=given["how"],
        expect=expect,
        checks=[Check(*check) for check in given.get("check", [])],
        between=given.get("between", []),
        variables=given.get("variables"),
    )


def _read_package(directory: Path, modes: Mapping[str, str], keep: Sequence[str]) -> Package:
    compose_file = directory / "compose.yaml"
    files = [
        _file_input(path.relative_to(directory).as_posix(), path.read_bytes(), modes, keep)
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path != compose_file and not _is_of_the_case(path.relative_to(directory))
    ]
    return Package(compose_file.read_text(), files)


def _is_of_the_case(path: Path) -> bool:
    return path.parts[0] == "then" or path == Path("case.json")


def _file_input(path: str, content: bytes, modes: Mapping[str, str], keep: Sequence[str]) -> dict[str, object]:
    """A PackageFileInput; text where the bytes are UTF-8."""
    made: dict[str, object] = {"path": path}
    try:
        made["content"] = content.decode()
    except UnicodeDecodeError:
        made["base64"] = base64.b64encode(content).decode()
    if path in modes:
        made["mode"] = modes[path]
    if path in keep:
        made["onlyIfMissing"] = True
    return made


def _numbered(pattern: str, count: int) -> list[dict[str, object]]:
    return [{"name": pattern % number, "value": str(number)} for number in range(1, count + 1)]


def services_word(containers: Sequence[Mapping[str, Any]]) -> str:
    """SERVICES of a run's containers: `web:running:-` for each."""
    return " ".join(
        f"{container['service']}:{container['state'].lower()}:{(container['health'] or '-').lower()}"
        for container in containers
    )


def run_command(command: str, variables: Mapping[str, str]) -> str | None:
    """Run a command of a case on this machine; None when it exits with 0, else what it printed and its status."""
    ended = subprocess.run(
        ["sh", "-c", f"{FUNCTIONS}\n{command}"],
        env={**os.environ, **variables},
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
        timeout=COMMAND_TIMEOUT,
    )
    return None if ended.returncode == 0 else f"{ended.stdout.strip()} (exit status {ended.returncode})".strip()
