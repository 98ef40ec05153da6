"""The house itself: folders, names, imports, scripts, and what no file may say."""

import ast
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from runner.host.answers import OLDEST_COMPOSE
from runner.host.script import read

ROOT = Path(__file__).parents[1]
PACKAGES = ("daos", "schema", "resolvers", "runner", "db")

# In two pieces each, or this file would name them.
NOT_OURS = tuple(
    "".join(pieces)
    for pieces in (
        ("pypi.", "org"),
        ("python", "hosted"),
        ("registry.", "npmjs"),
        ("deb.", "debian.org"),
        ("security.", "debian.org"),
        ("/work", "/"),
        ("/opt", "/pypi"),
        ("/opt", "/wheels"),
        (".py", "env/"),
    )
)


@pytest.fixture(scope="module")
def our_files() -> list[Path]:
    """Every file that git tracks or would."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    return [path for path in paths if path.is_file()]


def test_imports_point_one_way() -> None:
    checked = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    assert checked.returncode == 0, checked.stdout


def test_every_folder_of_tests_is_a_package(our_files: list[Path]) -> None:
    folders = {path.parent for path in our_files if path.suffix == ".py" and path.is_relative_to(ROOT / "tests")}
    assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []


# Modules that have no test file of their own, and why.
UNMIRRORED = {
    "daos/__main__.py": "it calls `daos.cli.main`, as whole servers of tests/e2e do",
    "db/migrations/env.py": "Alembic executes it: tests/db/test_migrations.py goes through it in each test",
    "runner/engine/base.py": "it declares what an engine is; tests of the two engines are tests of it",
    "runner/play/request.py": "one dataclass without a method",
    "schema/__init__.py": "it assembles the schema, which tests/api is about",
    "ansible/action_plugins/compose_project.py": "it joins parts of runner/host; all of tests/ansible plays it",
    "runner/play/channel.py": "test_warm.py goes through it in each play",
    "runner/play/posix.py": "what it renews in a fork is seen there, in test_preload.py",
    "runner/play/program.py": "test_play.py plays it",
    "schema/types.py": "its fields are read in test_query.py",
}


def test_each_module_has_one_test_file_and_each_test_file_a_module(our_files: list[Path]) -> None:
    """`runner/ssh/scan.py` has `tests/runner/ssh/test_scan.py`, and a package with code of its own is a module too.

    Promises that go through several modules are tested elsewhere: those of the API in tests/api, those of whole
    servers in tests/e2e, and playbooks and shell in tests/ansible.
    """
    rooms = (*PACKAGES, "ansible/action_plugins")
    names = {path.relative_to(ROOT) for path in our_files if path.suffix == ".py"}
    ours = {path for path in names if str(path).startswith(tuple(f"{room}/" for room in rooms))}
    modules = {path for path in ours if "versions" not in path.parts and (path.name != "__init__.py" or _does(path))}
    expected = {_test_of(path) for path in modules if str(path) not in UNMIRRORED}
    found = {
        path
        for path in names
        if path.name.startswith("test_") and str(path).startswith(tuple(f"tests/{room}/" for room in rooms))
    }
    assert (sorted(expected - found), sorted(found - expected)) == ([], [])
    assert UNMIRRORED.keys() <= set(map(str, modules))


def _does(module: Path) -> bool:
    """Whether a module defines something, and does not only name or document."""
    return any(isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) for node in _read(module).body)


def _read(module: Path) -> ast.Module:
    return ast.parse((ROOT / module).read_text())


def _test_of(module: Path) -> Path:
    named = module.parent if module.name == "__init__.py" else module
    return Path("tests") / named.parent / f"test_{named.stem}.py"


LONG = {"file": 300, "function": 40}  # lines


def test_what_is_long_has_a_reason_next_to_it(our_files: list[Path]) -> None:
    rooms = tuple(f"{room}/" for room in (*PACKAGES, "ansible", "bench"))
    unexplained = []
    for path in our_files:
        name = str(path.relative_to(ROOT))
        if path.suffix != ".py" or not name.startswith(rooms) or "versions" in path.parts:
            continue
        lines = path.read_text().splitlines()
        if len(lines) > LONG["file"] and not _explains(lines[:40], "file"):
            unexplained.append(name)
        for node in ast.walk(ast.parse("\n".join(lines))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None:
                own = lines[node.lineno - 1 : node.end_lineno]
                if len(own) > LONG["function"] and not _explains(own, "function"):
                    unexplained.append(f"{name}: {node.name}")
    assert unexplained == []


def _explains(lines: list[str], kind: str) -> bool:
    return any(line.strip().startswith(f"# Longer than {LONG[kind]} lines: ") for line in lines)


def test_ansible_is_no_package() -> None:
    assert list((ROOT / "ansible").rglob("__init__.py")) == []


def test_no_file_names_a_registry_or_a_path_of_one_machine(our_files: list[Path]) -> None:
    named = [
        f"{path.relative_to(ROOT)}: {needle}"
        for path in our_files
        for needle in NOT_OURS
        if needle.encode() in path.read_bytes()
    ]
    assert named == []


def test_scripts_can_be_run_and_parsed(our_files: list[Path]) -> None:
    scripts = [path for path in our_files if path.parent.name in ("scripts", ".ci") and path.suffix == ""]
    assert {"serve", "test", "check", "lock", "run"} <= {path.name for path in scripts}
    for script in scripts:
        shebang = script.read_text().splitlines()[0]
        assert os.access(script, os.X_OK), script
        assert shebang.startswith("#!"), script
        if shebang.endswith("sh"):
            shell = shebang.rsplit("/", 1)[1].split()[-1]
            parsed = subprocess.run([shell, "-n", script], check=False, capture_output=True, text=True)
            assert parsed.returncode == 0, parsed.stderr


@pytest.mark.parametrize("name", PACKAGES)
def test_no_distribution_brings_a_package_of_our_name(name: str) -> None:
    assert set(metadata.packages_distributions().get(name, [])) <= {"daos"}


def test_ansible_core_is_the_release_that_the_runner_knows() -> None:
    assert metadata.version("ansible-core").startswith("2.19.")
    assert set(metadata.packages_distributions()["ansible"]) == {"ansible-core"}


def test_a_supported_python_is_one_that_is_tested() -> None:
    declared = r'^requires-python = ">=3\.(\d+),<3\.(\d+)"$'
    [supported] = re.findall(declared, (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    oldest, end = map(int, supported)
    assert (3, oldest) <= sys.version_info[:2] < (3, end)
    ci, environment = ((ROOT / path).read_text() for path in (".ci/run", "scripts/environment"))
    assert {f"python3.{minor}" for minor in range(oldest + 1, end)} == set(re.findall(r"python3\.\d+", _loop(ci)))
    assert f"(3, {oldest}) <= sys.version_info < (3, {end})" in environment


def _loop(script: str) -> str:
    return next(line for line in script.splitlines() if line.strip().startswith("for newer in"))


def test_both_lock_files_name_one_version_of_each_package() -> None:
    serving, developing = (_pins(name) for name in ("requirements.lock", "requirements-dev.lock"))
    assert serving.items() <= developing.items()


def _pins(lock: str) -> dict[str, str]:
    pins = [line.removesuffix("\\") for line in (ROOT / lock).read_text().splitlines() if not line.startswith(" ")]
    return dict(pin.split("==", 1) for pin in pins)


def test_no_file_uses_a_module_of_ours_and_the_standard_librarys_of_the_same_name(our_files: list[Path]) -> None:
    both = {}
    for path in our_files:
        if path.suffix == ".py":
            ours, theirs = _imported(ast.parse(path.read_text()))
            both[str(path.relative_to(ROOT))] = ours & theirs
    assert {path: names for path, names in both.items() if names} == {}


def _imported(tree: ast.Module) -> tuple[set[str], set[str]]:
    """Names of modules in the standard library: those that a file imports from us, and those that it imports there."""
    ours, theirs = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            theirs |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            top, *parts = node.module.split(".")
            if top in (*PACKAGES, "tests", "bench"):
                modules = [
                    alias.name for alias in node.names if (ROOT / top).joinpath(*parts, f"{alias.name}.py").exists()
                ]
                ours |= {*parts, *modules}
            else:
                theirs.add(top)
    return ours & sys.stdlib_module_names, theirs & sys.stdlib_module_names


@pytest.mark.parametrize("document", ["README.md", "docs/operations.md"])
def test_what_a_host_needs_is_what_the_script_on_it_asks_for(document: str) -> None:
    script = "".join(read(ROOT / "ansible/files/compose_project").values())
    programs = {*re.findall(r"^require_tool (\S+)", script, re.MULTILINE), "awk", "find"}
    lines = (ROOT / document).read_text().splitlines()
    oldest = f"Compose {'.'.join(map(str, OLDEST_COMPOSE))} or newer"
    [line] = [line for line in lines if oldest in line and "Docker" in line]
    assert {program for program in programs if f"`{program}`" not in line} == set()
    assert {program for program in ("awk", "find") if not re.search(rf"\b{program}\b", script)} == set()


def test_the_number_of_test_processes_is_the_one_of_the_script() -> None:
    [number] = set(re.findall(r"--numprocesses (\d+)", (ROOT / "scripts" / "test").read_text()))
    assert f"all tests under coverage, in {number} processes;" in (ROOT / "CONTRIBUTING.md").read_text()


TRUSTED = {
    "an unauthenticated client",
    "a viewer",
    "an operator",
    "a deployer",
    "an admin",
    "a local user of the server",
    "a container",
    "a host",
}


def test_each_cell_of_the_table_of_trust_names_a_test() -> None:
    text = (ROOT / "docs" / "security.md").read_text()
    [table] = re.findall(r"\| who \|.*\n\| ---.*\n((?:\|.*\n)+)", text)
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in table.splitlines()]
    assert {row[0] for row in rows} == TRUSTED
    assert [cell for row in rows for cell in row[1:] if not re.search(r"\(`tests/[^`]+::test_\w+`.*\)\Z", cell)] == []
    assert {len(row) for row in rows} == {4}


def test_each_test_that_a_document_names_is_there() -> None:
    named = {
        match
        for document in (ROOT / "docs").rglob("*.md")
        for match in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", document.read_text())
    }
    assert len(named) > 30
    assert [(path, name) for path, name in named if not _has_test(ROOT / path, name)] == []


def _has_test(path: Path, name: str) -> bool:
    """Whether a file defines a test of this name, and not only a string of it."""
    defined = ast.parse(path.read_text()).body if path.exists() else []
    return name in {node.name for node in defined if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_each_promise_of_security_names_what_holds_it_and_a_test_that_is_there() -> None:
    text = (ROOT / "docs" / "security.md").read_text()
    named = set(re.findall(r"`((?:daos|schema|resolvers|runner|db|ansible|tests)/[^`*:]+)(?:::\w+)?`", text))
    assert {path for path in named if not (ROOT / path).exists()} == set()
    tables = re.findall(r"\|.*\| test \|\n\| --- \| --- \| --- \|\n((?:\|.*\n)+)", text)
    promises = [row for table in tables for row in table.splitlines()]
    assert len(promises) > 40
    assert [row for row in promises if "`tests/" not in row.rsplit("|", 2)[1]] == []
