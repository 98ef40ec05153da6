"""The wheel that strangers install: what is in it, and that its command works in a bare environment."""

import json
import subprocess

import pytest

from tests.support.installation import ROOT, InstalledDaos
from tests.support.requirement import require

PACKAGES = ("daos", "schema", "resolvers", "runner", "db")
BARE = {"PATH": "/nonexistent"}


@pytest.mark.parametrize(
    "path",
    [
        "daos/cli.py",
        "schema/schema.graphql",
        "runner/playbooks/ansible.cfg",
        "runner/playbooks/deploy.yml",
        "runner/playbooks/action_plugins/compose_project.py",
        "runner/playbooks/library/compose_project.py",
        "db/migrations/env.py",
    ],
)
def test_the_wheel_holds(installed_daos: InstalledDaos, path: str) -> None:
    assert path in installed_daos.files


def test_the_wheel_holds_the_migrations(installed_daos: InstalledDaos) -> None:
    assert [path for path in installed_daos.files if path.startswith("db/migrations/versions/0")]


def test_the_wheel_holds_the_explorer(installed_daos: InstalledDaos) -> None:
    built = (ROOT / "daos" / "explorer" / "index.html").exists()
    require("explorer", None if built else "GraphiQL is not built (scripts/explorer)")
    assert "daos/explorer/index.html" in installed_daos.files


def test_the_wheel_holds_nothing_but_the_five_packages(installed_daos: InstalledDaos) -> None:
    tops = {path.split("/")[0] for path in installed_daos.files}
    assert {top for top in tops if not top.endswith(".dist-info")} == set(PACKAGES)


def test_the_five_packages_are_ours_alone(installed_daos: InstalledDaos) -> None:
    script = "import importlib.metadata, json; print(json.dumps(importlib.metadata.packages_distributions()))"
    listed = subprocess.run(
        [installed_daos.python, "-I", "-c", script], check=True, capture_output=True, text=True, env=BARE
    )
    owners = json.loads(listed.stdout)
    assert {name: set(owners[name]) for name in PACKAGES} == {name: {"daos"} for name in PACKAGES}
    assert set(owners["ansible"]) == {"ansible-core"}


@pytest.mark.parametrize("start", [["daos"], ["python", "-m", "daos"]])
def test_the_command_starts_without_a_path(installed_daos: InstalledDaos, start: list[str]) -> None:
    program, *arguments = start
    command = [str(installed_daos.command.with_name(program)), *arguments, "--help"]
    helped = subprocess.run(command, check=False, capture_output=True, text=True, env=BARE, cwd="/")
    assert (helped.returncode, helped.stderr) == (0, "")
    assert "serve" in helped.stdout
