"""How the script gets to a host, by whichever shell, and how its words become a result."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ansible.machine import SCRIPT, Machine, load_plugin, service

plugin = load_plugin()
SHELLS = [["dash"], ["busybox", "sh"], ["bash", "--posix"]]
NOBODY = 65534
LOGIN_SHELLS = ["dash", "bash", "zsh", "fish", "tcsh"]


def require_program(name: str) -> None:
    if shutil.which(name) is None:
        pytest.skip(f"there is no {name}")


@pytest.fixture
def busybox_path(tmp_path: Path) -> str:
    """A PATH that leads to docker, flock and, for everything else, busybox: a small Linux distribution."""
    require_program("busybox")
    links = tmp_path / "bin"
    links.mkdir()
    for applet in subprocess.run(["busybox", "--list"], check=True, capture_output=True, text=True).stdout.split():
        (links / applet).symlink_to(str(shutil.which("busybox")))
    for program in ("docker", "flock"):  # Debian builds its busybox without flock
        (links / program).unlink(missing_ok=True)
        (links / program).symlink_to(str(shutil.which(program)))
    return str(links)


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell[0])
def test_the_script_can_be_parsed(shell: list[str]) -> None:
    require_program(shell[0])
    parsed = subprocess.run([*shell, "-n", SCRIPT], check=False, capture_output=True, text=True)
    assert (parsed.returncode, parsed.stderr) == (0, "")


@pytest.mark.parametrize("shell", [["dash"], ["bash", "--posix"]], ids=lambda shell: shell[0])
def test_a_project_goes_up_and_down_by_each_shell(local: Machine, shell: list[str]) -> None:
    require_program(shell[0])
    local.begin({"web": service("sleep", "1000"), "job": service("sh", "-c", "exit 3")}, {"a b/c": "d"})
    results = [local.phase(phase, interpreter=shell) for phase in ("prepare", "pull", "up", "verify", "settle", "down")]
    assert [result.reason for result in results] == [None, None, None, "UNHEALTHY", "UNHEALTHY", None]
    assert results[4].verdict == "failed"
    assert (local.files / "a b/c").read_text() == "d"


def test_a_project_goes_up_and_down_by_busybox(local: Machine, busybox_path: str) -> None:
    environment = {"PATH": busybox_path}
    local.begin({"web": service("sleep", "1000")}, {"a b/c": "d"})
    for phase in ("prepare", "pull", "up", "verify"):
        result = local.phase(phase, interpreter=("busybox", "sh"), environment=environment)
        assert not result.failed, result
    assert result.services[0]["state"] == "running"
    local.begin({"web": service("sleep", "1000")}, {"a b/c": "e"})
    results = [
        local.phase(phase, interpreter=("busybox", "sh"), environment=environment)
        for phase in ("prepare", "pull", "up", "verify", "settle", "down")
    ]
    assert [result.changed for result in results] == [True, False, True, False, False, True]
    assert (results[4].matching, results[4].verdict) == (True, "ok")
    assert (local.files / "a b/c").read_text() == "e"


def test_busybox_notices_a_time_out(local: Machine, busybox_path: str) -> None:
    local.begin(
        {
            "web": service("true", depends_on={"job": {"condition": "service_completed_successfully"}}),
            "job": service("sleep", "1000"),
        }
    )
    results = [
        local.phase(phase, interpreter=("busybox", "sh"), environment={"PATH": busybox_path}, timeouts={"up": 2})
        for phase in ("prepare", "pull", "up")
    ]
    assert results[-1].reason == "TIMEOUT"


@pytest.fixture
def nobodys_home(local: Machine) -> Iterator[Machine]:
    """The machine with a home directory of the user nobody."""
    if os.geteuid() != 0:
        pytest.skip("only root can become nobody")
    require_program("setpriv")
    with tempfile.TemporaryDirectory(prefix="daos") as home:
        os.chown(home, NOBODY, NOBODY)
        local.home, local.environment = Path(home), {}
        yield local


def test_a_user_of_dockers_group_needs_no_root(nobodys_home: Machine) -> None:
    socket = Path("/var/run/docker.sock")
    nobody = ("setpriv", f"--reuid={NOBODY}", f"--regid={socket.stat().st_gid}", "--clear-groups", "/bin/sh")
    nobodys_home.begin({"web": service("sleep", "1000")})
    for phase in ("prepare", "pull", "up", "verify", "settle", "down"):
        result = nobodys_home.phase(phase, interpreter=nobody)
        assert not result.failed, result


def test_a_user_who_may_not_use_docker_is_told_so(nobodys_home: Machine) -> None:
    nobody = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "/bin/sh")
    nobodys_home.begin({"web": service("sleep", "1000")})
    result = nobodys_home.phase("prepare", interpreter=nobody)
    assert result.reason == "DOCKER_UNAVAILABLE"
    assert "permission denied" in result.detail


@pytest.mark.parametrize("shell", LOGIN_SHELLS)
def test_the_command_survives_a_login_shell(shell: str) -> None:
    require_program(shell)
    script = """printf '%s|' "$@" 'it''s' "\\"$1\\"" `echo a` \\\\ '\\n' '!!' # comment\necho 'ü'"""
    variables = {
        "daos_run": "run",
        "daos_deployment": "deployment",
        "daos_project": "project",
        "daos_timeouts": {"up": 1.5},
        "daos_settle": 0.5,
        "daos_rivals": ["rival"],
    }
    line = plugin.command(script, "up", variables)
    ended = subprocess.run([shell, "-c", f"/bin/sh -c '{line}'"], check=True, capture_output=True, text=True)
    assert ended.stdout == 'up|run|deployment|project|2|50|rival|its|"up"|a|\\|\\n|!!|ü\n'


def test_the_command_carries_no_secret_and_no_file(local: Machine) -> None:
    local.begin({"web": service("true")}, {".env": "PASSWORD=hunter2"})
    assert "hunter2" not in local.command("prepare")


def test_words_are_told_apart_from_facts() -> None:
    said = ". \n| = result ok\n|  indented\n| \n= reason TIMEOUT\n= detail too late\n= changed true\n= result failed\n"
    result = plugin.result("pull", 0, said, "")
    assert result == {
        "changed": True,
        "failed": True,
        "msg": "too late",
        "daos": {
            "phase": "pull",
            "reason": "TIMEOUT",
            "detail": "too late",
            "lines": ["= result ok", " indented", ""],
            "services": [],
        },
    }


def test_a_login_that_greets_is_not_listened_to() -> None:
    result = plugin.result("up", 0, "Welcome!\nfortune: . \n= changed false\n= result ok\n", "")
    assert not result["failed"]
    assert result["daos"]["lines"] == []


@pytest.mark.parametrize(
    ("rc", "stdout", "stderr", "words"),
    [
        (127, "", "sh: 1: /bin/sh: not found\n\n", "ended with status 127: sh: 1: /bin/sh: not found"),
        (1, "This account is currently not available.\n", "", "status 1: This account is currently not available."),
        (137, ". \n| Container web Started\n", "", "status 137: it said nothing"),
    ],
)
def test_a_command_without_a_result_failed(rc: int, stdout: str, stderr: str, words: str) -> None:
    result = plugin.result("up", rc, stdout, stderr)
    assert result["failed"]
    assert result["daos"]["reason"] == "TASK_FAILED"
    assert words in result["daos"]["detail"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07text", "text"),
        ("a\x00b\x08c\rd\x85e\u2028f", "abcdef"),
        ("tab\tstays, ü and \N{REPLACEMENT CHARACTER} too", "tab\tstays, ü and \N{REPLACEMENT CHARACTER} too"),
    ],
)
def test_words_hold_nothing_that_a_terminal_obeys(text: str, shown: str) -> None:
    assert plugin.printable(text) == shown


def test_endless_words_keep_their_beginning_and_their_end() -> None:
    said = "".join(f"| {number}\n" for number in range(10_000)) + "= result ok\n"
    lines = plugin.result("up", 0, said, "")["daos"]["lines"]
    assert (lines[0], lines[-1], lines[2000]) == ("0", "9999", "(6000 lines left out)")
    assert len(lines) == 4001
