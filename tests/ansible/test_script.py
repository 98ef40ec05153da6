"""How the script gets to a host, by whichever shell."""

import re
import shutil
import subprocess
from typing import Any

import pytest

from db.containers import ContainerState
from db.phase import Phase, PhaseOutcome
from runner.host import script
from runner.host.arguments import Arguments
from runner.spec.run import ProjectFile
from tests.support.docker import Docker
from tests.support.machine import NOBODY, PLAYBOOKS, SCRIPT, Machine, as_nobody, contents, service

SHELLS = [["dash"], ["busybox", "sh"], ["bash", "--posix"]]
UP = PLAYBOOKS["deploy.yml"]
LOGIN_SHELLS = ["dash", "bash", "zsh", "fish", "tcsh"]


def require_program(name: str) -> None:
    if shutil.which(name) is None:
        pytest.skip(f"there is no {name}")


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell[0])
def test_the_script_can_be_parsed(shell: list[str]) -> None:
    require_program(shell[0])
    for phases in (UP, (Phase.DOWN,), (Phase.HALT, Phase.RECOVER)):
        text = script.joined(script.read(SCRIPT), phases)
        parsed = subprocess.run([*shell, "-n"], input=text, check=False, capture_output=True, text=True)
        assert (parsed.returncode, parsed.stderr) == (0, "")


@pytest.mark.parametrize("phases", [UP, (Phase.DOWN,), (Phase.HALT,), (Phase.RECOVER,)], ids="-".join)
def test_each_phase_has_the_functions_that_it_calls(phases: tuple[Phase, ...]) -> None:
    """Of a part that is not sent, nothing is called."""
    whole, sent = (script.joined(script.read(SCRIPT), wanted) for wanted in (script.ALL, phases))
    names = set(re.findall(r"^([a-z_]+)\(\) ", whole, re.MULTILINE)) - {phase.word for phase in script.ALL}
    code = re.sub(r"^\s*#.*$|\s#\s.*$|'[^'\n]*'", "", sent, flags=re.MULTILINE)
    called = {name for name in names if re.search(rf"(?<![\w/$.-]){name}(?![\w=/.])", code)}
    assert called <= set(re.findall(r"^([a-z_]+)\(\) ", sent, re.MULTILINE))


@pytest.mark.parametrize("shell", [["dash"], ["bash", "--posix"]], ids=lambda shell: shell[0])
def test_a_project_goes_up_and_down_by_each_shell(local: Machine, shell: list[str]) -> None:
    require_program(shell[0])
    local.begin({"web": service("sleep", "1000"), "job": service("sh", "-c", "exit 3")}, {"a b/c": "d"})
    results = local.run_phases(*UP, interpreter=shell)
    results += [local.phase(phase, interpreter=shell) for phase in (Phase.RECOVER, Phase.DOWN)]
    assert [result.reason for result in results] == [None, None, None, None, "UNHEALTHY", "UNHEALTHY", None]
    assert results[5].verdict is PhaseOutcome.FAILED
    assert (local.files / "a b/c").read_text() == "d"


def test_a_project_goes_up_and_down_by_busybox(local: Machine, docker: Docker, busybox_path: str) -> None:
    how: dict[str, Any] = {"interpreter": ("busybox", "sh"), "environment": {"PATH": busybox_path}}
    web = {"web": service("sleep", "1000", volumes=["./a b:/mounted"])}
    seed = ProjectFile(b"seed", mode=0o640, only_if_missing=True)
    local.begin(web, {"a b/c": "d", "gone": "x", "seed": seed})
    result = local.run_phases(*UP, **how)[-1]
    assert (result.phase, result.failed) == (Phase.VERIFY, False), result
    assert result.containers[0].state is ContainerState.RUNNING
    (local.files / "seed").write_text("mine")
    (local.files / "gone").write_text("mine")

    local.begin(web, {"a b/c": "e", "seed": seed})
    results = local.run_phases(*UP, **how)
    (container,) = docker.containers(local.project)
    mounted = docker.run("exec", container, "cat", "/mounted/c")
    results += [local.phase(phase, **how) for phase in (Phase.RECOVER, Phase.DOWN)]
    assert [result.changed for result in results] == [False, False, False, True, False, False, True]
    assert results[0].warnings == [
        "File gone was modified on the host, and is deleted, as the package no longer has it."
    ]
    assert results[5].verdict is PhaseOutcome.OK
    assert (mounted, contents(local.files)["seed"], "gone" in contents(local.files)) == ("e", b"mine", False)


def test_busybox_notices_a_time_out(local: Machine, busybox_path: str) -> None:
    local.begin(
        {
            "web": service("true", depends_on={"job": {"condition": "service_completed_successfully"}}),
            "job": service("sleep", "1000"),
        }
    )
    environment = {"PATH": busybox_path}
    results = local.run_phases(*UP, interpreter=("busybox", "sh"), environment=environment, timeouts={"up": 2})
    assert (results[-1].phase, results[-1].reason) == (Phase.UP, "TIMEOUT")


def test_a_user_of_dockers_group_needs_no_root(nobodys_home: Machine) -> None:
    nobodys_home.begin({"web": service("sleep", "1000")}, {"page": "x"})
    results = nobodys_home.run_phases(*UP, interpreter=as_nobody())
    results += [nobodys_home.phase(phase, interpreter=as_nobody()) for phase in (Phase.RECOVER, Phase.DOWN)]
    assert [result.detail for result in results] == [None] * 7


def test_a_user_who_may_not_use_docker_is_told_so(nobodys_home: Machine) -> None:
    nobodys_home.begin({"web": service("sleep", "1000")})
    result = nobodys_home.phase(Phase.PREPARE, interpreter=as_nobody(NOBODY))
    assert result.reason == "DOCKER_UNAVAILABLE"
    assert "permission denied" in result.detail


@pytest.mark.parametrize("shell", LOGIN_SHELLS)
def test_the_command_survives_a_login_shell(shell: str) -> None:
    require_program(shell)
    text = """printf '%s|' "$@" 'it''s' "\\"$1\\"" `echo a` \\\\ '\\n' '!!' # comment\n  # a line\necho 'ü'"""
    timeouts = {"up": 1.5, "verify": 3.0}
    arguments = Arguments(
        (Phase.UP, Phase.VERIFY), "project", "run", "deployment", "installation", ("rival",), 0.5, timeouts
    )
    line = script.command({"main": script.escaped(text)}, arguments, None)
    assert "a line" not in line
    ended = subprocess.run([shell, "-c", f"/bin/sh -c '{line}'"], check=True, capture_output=True, text=True)
    told = "up,verify|run|deployment|installation|project|2,3|0|-|0|0|-|no|rival"
    assert ended.stdout == told + '|its|"up,verify"|a|\\|\\n|!!|ü\n'


def test_the_command_carries_no_secret_and_no_file(local: Machine) -> None:
    local.begin({"web": service("true")}, {".env": "PASSWORD=hunter2"})
    assert "hunter2" not in local.command(Phase.PREPARE)
