"""What docs/ansible.md describes works: the playbooks without a server."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.docker import Docker
from tests.support.machine import PROJECT

DOCUMENT = (PROJECT.parent / "docs/ansible.md").read_text()


def block(language: str) -> str:
    """The one block of this language in the document's part on runs by hand."""
    part = DOCUMENT.split("\n## ")[1]
    [text] = re.findall(rf"```{language}\n(.*?)```", part, re.DOTALL)
    return str(text)


class Desk:
    """A directory with a package and an inventory, as an operator has them; its project is the test's own."""

    def __init__(self, directory: Path, project: str) -> None:
        self.directory = directory
        self.inventory: dict[str, Any] = json.loads(block("json"))
        self.arguments["project"] = project
        package = directory / "shop"
        package.mkdir()
        (package / "compose.yaml").write_text(block("yaml").replace("init: true", "init: true\n    network_mode: none"))
        (directory / "ansible").symlink_to(PROJECT)
        (directory / "home").mkdir()

    @property
    def arguments(self) -> dict[str, Any]:
        found: dict[str, Any] = self.inventory["all"]["hosts"]["web-1"]["daos"]
        return found

    def run(self, commands: str) -> subprocess.CompletedProcess[str]:
        """Run commands as an operator does, up to the first that fails."""
        (self.directory / "inventory.json").write_text(json.dumps(self.inventory))
        binaries = Path(sys.executable).parent
        environment = {
            "HOME": str(self.directory / "home"),
            "PATH": f"{binaries}:{os.environ['PATH']}",
            "LANG": "C.UTF-8",
        }
        return subprocess.run(
            ["sh", "-ec", commands],
            cwd=self.directory,
            env=environment,
            check=False,
            capture_output=True,
            text=True,
        )


@pytest.fixture
def desk(docker: Docker, project_name: str, tmp_path: Path) -> Desk:
    return Desk(tmp_path, project_name)


CONFIGURED = "export ANSIBLE_CONFIG=ansible/ansible.cfg\n"
PLAY = f"{CONFIGURED}ansible-playbook -i inventory.json ansible/"


def test_the_documented_commands_bring_a_project_up_and_down(desk: Desk, docker: Docker) -> None:
    commands = block("sh").splitlines()
    up = desk.run("\n".join(commands[:-1]))
    assert up.returncode == 0, up.stdout + up.stderr
    [container] = docker.containers(desk.arguments["project"])
    assert docker.run("inspect", "--format", "{{.State.Status}} {{.Path}}", container).split() == ["running", "sleep"]
    for line in ("web-1: Prepare begins.", "web-1: Up begins.", "web-1: Verify begins."):
        assert line in up.stdout
    assert "daos [" not in up.stdout
    again = desk.run("\n".join(commands[:-1]))
    assert "changed=0" in again.stdout
    down = desk.run(f"{CONFIGURED}{commands[-1]}")
    assert down.returncode == 0, down.stdout + down.stderr
    assert docker.containers(desk.arguments["project"]) == []


def test_check_mode_is_refused(desk: Desk, docker: Docker) -> None:
    played = desk.run(f"{PLAY}deploy.yml --check")
    assert played.returncode == 2
    assert "compose_project does not support check mode; nothing was changed." in played.stdout + played.stderr
    assert docker.containers(desk.arguments["project"]) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"project": None}, "missing required arguments: project found in run"),
        ({"colour": "red"}, "Unsupported parameters for (compose_project) module: run.colour."),
        ({"timeouts": {"up": "soon"}}, "argument 'up' is of type str found in 'run -> timeouts'"),
        ({"delivery": None}, "missing required arguments: delivery found in run, for action up"),
        ({"delivery": "nowhere"}, "The delivery nowhere cannot be read: [Errno 2] No such file or directory"),
        ({"delivery": "inventory.json"}, "The delivery inventory.json cannot be read: "),
    ],
)
def test_arguments_that_do_not_fit_are_named(desk: Desk, changes: dict[str, Any], words: str) -> None:
    for name, value in changes.items():
        desk.arguments[name] = value
        if value is None:
            del desk.arguments[name]
    played = desk.run(f"{PLAY}deploy.yml")
    assert played.returncode == 2
    assert words in " ".join((played.stdout + played.stderr).split())


def test_what_is_marked_in_the_inventory_is_not_evaluated(desk: Desk) -> None:
    template = "{{ lookup('pipe', 'touch owned') }}"
    for name in ("project", "id", "deployment", "installation"):
        desk.arguments[name] = {"__ansible_unsafe": template}
    played = desk.run(f"{PLAY}down.yml")
    assert template in played.stdout  # as the name of a project
    assert not (desk.directory / "owned").exists()


def test_a_playbook_of_the_operators_own_can_use_the_containers(desk: Desk, docker: Docker) -> None:
    (desk.directory / "own.yml").write_text(block("yml"))
    deliver = "python -m runner.spec.delivery shop > delivery"
    played = desk.run(f"{CONFIGURED}{deliver}\nansible-playbook -i inventory.json own.yml")
    assert played.returncode == 0, played.stdout + played.stderr
    assert f'"msg": "{desk.arguments["project"]}-web-1"' in played.stdout
