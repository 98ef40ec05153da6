"""How the script gets to a host, by whichever shell, and how its words become a result."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.ansible.machine import SCRIPT, Machine, load_plugin, service

plugin = load_plugin()
SHELLS = [["dash"], ["busybox", "sh"], ["bash", "--posix"]]
NOBODY = 65534
LOGIN_SHELLS = ["dash", "bash", "zsh", "fish", "tcsh"]


def require_program(name: str) -> None:
    if shutil.which(name) is None:
        pytest.skip(f"there is no {name}")


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
def test_the_command_survives_a_login_shell(shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    require_program(shell)
    script = """printf '%s|' "$@" 'it''s' "\\"$1\\"" `echo a` \\\\ '\\n' '!!' # comment\n  # a line\necho 'ü'"""
    variables = {
        "daos_run": "run",
        "daos_deployment": "deployment",
        "daos_project": "project",
        "daos_timeouts": {"up": 1.5, "verify": 3},
        "daos_settle": 0.5,
        "daos_rivals": ["rival"],
    }
    monkeypatch.setattr(plugin, "SCRIPT", plugin.escaped(script))
    line = plugin.command(["up", "verify"], variables)
    assert "a line" not in line
    ended = subprocess.run([shell, "-c", f"/bin/sh -c '{line}'"], check=True, capture_output=True, text=True)
    assert ended.stdout == 'up,verify|run|deployment|project|2,3|50|0|rival|its|"up,verify"|a|\\|\\n|!!|ü\n'


def test_the_command_carries_no_secret_and_no_file(local: Machine) -> None:
    local.begin({"web": service("true")}, {".env": "PASSWORD=hunter2"})
    assert "hunter2" not in local.command("prepare")


class Ear:
    """A listener, and what it has told."""

    def __init__(self, *phases: str) -> None:
        self.told: list[dict[str, Any]] = []
        self.listener = plugin.Listener(list(phases), tell=self.told.extend)

    def hear(self, *words: str) -> list[dict[str, Any]]:
        """What is told of words that come at once."""
        before = len(self.told)
        self.listener.hear("".join(words).encode())
        return self.told[before:]

    def lines(self) -> list[str]:
        return [line for message in self.told for line in message.get("lines", [])]


def test_words_are_told_apart_from_facts() -> None:
    ear = Ear("pull")
    told = ear.hear(
        ". \n= phase pull\n| = result ok\n|  indented\n| \n"
        "= reason TIMEOUT\n= detail too late\n= changed true\n= result failed\n"
    )
    end = {"changed": True, "failed": True, "reason": "TIMEOUT", "detail": "too late", "services": []}
    assert told == [
        {"phase": "pull"},
        {"phase": "pull", "lines": ["= result ok", " indented", ""]},
        {"phase": "pull", "end": end},
    ]
    assert ear.listener.result(0, "") == {"changed": True, "failed": True, "msg": "too late", "daos": [end]}


def test_words_are_told_when_they_come_whole() -> None:
    ear = Ear("pull", "up")
    assert ear.hear("= phase pull\n| Pulling ") == [{"phase": "pull"}]
    assert ear.hear("web\n| half") == [{"phase": "pull", "lines": ["Pulling web"]}]
    assert ear.hear(" a word\n= result ok\n= phase up\n")[0] == {"phase": "pull", "lines": ["half a word"]}
    assert ear.told[-1] == {"phase": "up"}
    assert not ear.listener.complete
    ear.hear("= changed true\n= result ok\n")
    assert ear.listener.complete
    assert ear.listener.result(0, "")["changed"]


def test_a_character_in_two_pieces_is_one() -> None:
    ear = Ear("up")
    ear.hear("= phase up\n")
    first, second = "| ü\n".encode()[:3], "| ü\n".encode()[3:]
    ear.listener.hear(first)
    ear.listener.hear(second)
    assert ear.lines() == ["ü"]


def test_a_login_that_greets_is_not_listened_to() -> None:
    ear = Ear("up")
    ear.hear("Welcome!\nfortune: . \n= phase up\n= changed false\n= result ok\n")
    assert not ear.listener.result(0, "")["failed"]
    assert ear.lines() == []


@pytest.mark.parametrize(
    ("rc", "stdout", "stderr", "words"),
    [
        (127, "", "sh: 1: /bin/sh: not found\n\n", "ended with status 127: sh: 1: /bin/sh: not found"),
        (1, "This account is currently not available.\n", "", "status 1: This account is currently not available."),
        (137, ". \n= phase prepare\n| Container web Started\n", "", "status 137: it said nothing"),
    ],
)
def test_a_command_without_a_result_failed(rc: int, stdout: str, stderr: str, words: str) -> None:
    ear = Ear("prepare", "up")
    ear.hear(stdout)
    assert ear.listener.result(rc, stderr)["failed"]
    end = ear.told[-1]
    assert end["phase"] == "prepare"
    assert end["end"]["reason"] == "TASK_FAILED"
    assert words in end["end"]["detail"]


def test_a_command_that_dies_between_two_phases_failed_in_the_next() -> None:
    ear = Ear("prepare", "pull")
    ear.hear("= phase prepare\n= result ok\n")
    assert ear.listener.result(137, "")["failed"]
    assert [message["phase"] for message in ear.told if "end" in message] == ["prepare", "pull"]


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
    ear = Ear("up")
    ear.hear("= phase up\n", *(f"| {number}\n" for number in range(5000)))
    assert ear.lines()[-1] == "1999"
    ear.hear(*(f"| {number}\n" for number in range(5000, 10_000)), "= result ok\n")
    lines = ear.lines()
    assert (lines[0], lines[-1], lines[2000]) == ("0", "9999", "(6000 lines left out)")
    assert len(lines) == 4001


def test_a_program_is_heard_while_it_runs() -> None:
    heard: list[tuple[float, bytes]] = []
    script = "echo one; read word; echo $word >&2; sleep 1; echo two; exit 7"
    rc, stderr = plugin.stream(
        ["sh", "-c", script], b"x\n" * 100_000, lambda chunk: heard.append((time.monotonic(), chunk))
    )
    assert (rc, stderr) == (7, b"x\n")
    assert [chunk for _, chunk in heard] == [b"one\n", b"two\n"]
    assert heard[1][0] - heard[0][0] > 0.5
