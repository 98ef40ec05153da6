"""How the script gets to a host, by whichever shell, and how its words become a result."""

import json
import re
import shutil
import subprocess
import time
from typing import Any

import pytest

from runner.host import script
from runner.host.answers import Answers
from runner.spec.run import ProjectFile
from tests.ansible.machine import NOBODY, PLAYBOOKS, SCRIPT, Machine, as_nobody, contents, load_plugin, service
from tests.support.docker import Docker

plugin = load_plugin()
SHELLS = [["dash"], ["busybox", "sh"], ["bash", "--posix"]]
UP = PLAYBOOKS["deploy.yml"]
LOGIN_SHELLS = ["dash", "bash", "zsh", "fish", "tcsh"]


def require_program(name: str) -> None:
    if shutil.which(name) is None:
        pytest.skip(f"there is no {name}")


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell[0])
def test_the_script_can_be_parsed(shell: list[str]) -> None:
    require_program(shell[0])
    for phases in (UP, ("down",), ("halt", "recover")):
        text = script.joined(script.read(SCRIPT), phases)
        parsed = subprocess.run([*shell, "-n"], input=text, check=False, capture_output=True, text=True)
        assert (parsed.returncode, parsed.stderr) == (0, "")


@pytest.mark.parametrize("phases", [UP, ("down",), ("halt",), ("recover",)], ids="-".join)
def test_each_phase_has_the_functions_that_it_calls(phases: tuple[str, ...]) -> None:
    """Of a part that is not sent, nothing is called."""
    whole, sent = (script.joined(script.read(SCRIPT), wanted) for wanted in (script.ALL, phases))
    names = set(re.findall(r"^([a-z_]+)\(\) ", whole, re.MULTILINE)) - script.ALL
    code = re.sub(r"^\s*#.*$|\s#\s.*$|'[^'\n]*'", "", sent, flags=re.MULTILINE)
    called = {name for name in names if re.search(rf"(?<![\w/$.-]){name}(?![\w=/.])", code)}
    assert called <= set(re.findall(r"^([a-z_]+)\(\) ", sent, re.MULTILINE))


@pytest.mark.parametrize("shell", [["dash"], ["bash", "--posix"]], ids=lambda shell: shell[0])
def test_a_project_goes_up_and_down_by_each_shell(local: Machine, shell: list[str]) -> None:
    require_program(shell[0])
    local.begin({"web": service("sleep", "1000"), "job": service("sh", "-c", "exit 3")}, {"a b/c": "d"})
    results = local.run_phases(*UP, interpreter=shell)
    results += [local.phase(phase, interpreter=shell) for phase in ("recover", "down")]
    assert [result.reason for result in results] == [None, None, None, None, "UNHEALTHY", "UNHEALTHY", None]
    assert results[5].verdict == "failed"
    assert (local.files / "a b/c").read_text() == "d"


def test_a_project_goes_up_and_down_by_busybox(local: Machine, docker: Docker, busybox_path: str) -> None:
    how: dict[str, Any] = {"interpreter": ("busybox", "sh"), "environment": {"PATH": busybox_path}}
    web = {"web": service("sleep", "1000", volumes=["./a b:/mounted"])}
    seed = ProjectFile(b"seed", mode=0o640, only_if_missing=True)
    local.begin(web, {"a b/c": "d", "gone": "x", "seed": seed})
    result = local.run_phases(*UP, **how)[-1]
    assert (result.phase, result.failed) == ("verify", False), result
    assert result.containers[0]["state"] == "running"
    (local.files / "seed").write_text("mine")
    (local.files / "gone").write_text("mine")

    local.begin(web, {"a b/c": "e", "seed": seed})
    results = local.run_phases(*UP, **how)
    (container,) = docker.containers(local.project)
    mounted = docker.run("exec", container, "cat", "/mounted/c")
    results += [local.phase(phase, **how) for phase in ("recover", "down")]
    assert [result.changed for result in results] == [False, False, False, True, False, False, True]
    assert results[0].warnings == [
        "File gone was modified on the host, and is deleted, as the package no longer has it."
    ]
    assert results[5].verdict == "ok"
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
    assert (results[-1].phase, results[-1].reason) == ("up", "TIMEOUT")


def test_a_user_of_dockers_group_needs_no_root(nobodys_home: Machine) -> None:
    nobodys_home.begin({"web": service("sleep", "1000")}, {"page": "x"})
    results = nobodys_home.run_phases(*UP, interpreter=as_nobody())
    results += [nobodys_home.phase(phase, interpreter=as_nobody()) for phase in ("recover", "down")]
    assert [result.detail for result in results] == [None] * 7


def test_a_user_who_may_not_use_docker_is_told_so(nobodys_home: Machine) -> None:
    nobodys_home.begin({"web": service("sleep", "1000")})
    result = nobodys_home.phase("prepare", interpreter=as_nobody(NOBODY))
    assert result.reason == "DOCKER_UNAVAILABLE"
    assert "permission denied" in result.detail


@pytest.mark.parametrize("shell", LOGIN_SHELLS)
def test_the_command_survives_a_login_shell(shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    require_program(shell)
    text = """printf '%s|' "$@" 'it''s' "\\"$1\\"" `echo a` \\\\ '\\n' '!!' # comment\n  # a line\necho 'ü'"""
    variables = {
        "daos_run": "run",
        "daos_deployment": "deployment",
        "daos_installation": "installation",
        "daos_project": "project",
        "daos_timeouts": {"up": 1.5, "verify": 3},
        "daos_settle": 0.5,
        "daos_rivals": ["rival"],
    }
    monkeypatch.setattr(plugin, "PARTS", {"main": script.escaped(text)})
    line = plugin.command(["up", "verify"], variables)
    assert "a line" not in line
    ended = subprocess.run([shell, "-c", f"/bin/sh -c '{line}'"], check=True, capture_output=True, text=True)
    told = "up,verify|run|deployment|installation|project|2,3|0|-|0|0|-|no|rival"
    assert ended.stdout == told + '|its|"up,verify"|a|\\|\\n|!!|ü\n'


def test_the_command_carries_no_secret_and_no_file(local: Machine) -> None:
    local.begin({"web": service("true")}, {".env": "PASSWORD=hunter2"})
    assert "hunter2" not in local.command("prepare")


class Ear:
    """A listener, and what it has told."""

    def __init__(self, *phases: str) -> None:
        self.told: list[dict[str, Any]] = []
        self.listener = plugin.Listener(list(phases), Answers("shop"), tell=self.told.extend)

    def hear(self, *words: str) -> list[dict[str, Any]]:
        """What is told of words that come at once."""
        before = len(self.told)
        self.listener.hear("".join(words).encode())
        return self.told[before:]

    def lines(self) -> list[str]:
        return [line for message in self.told for line in message.get("lines", [])]


def end(**more: Any) -> dict[str, Any]:
    """The end of a phase where nothing happened."""
    usual: dict[str, Any] = {
        "changed": False,
        "failed": False,
        "reason": None,
        "detail": None,
        "containers": [],
        "warnings": [],
    }
    return usual | more


def test_words_are_told_apart_from_facts() -> None:
    ear = Ear("up")
    told = ear.hear(
        ". \n= phase up\n| = result ok\n|  indented\n| \n"
        "= reason TIMEOUT\n= detail too late\n= effect changed\n= result failed\n"
    )
    expected = end(changed=True, failed=True, reason="TIMEOUT", detail="too late")
    assert told == [
        {"phase": "up"},
        {"phase": "up", "lines": ["= result ok", " indented", ""]},
        {"phase": "up", "end": expected},
    ]
    assert ear.listener.result(0, "") == {"changed": True, "failed": True, "msg": "too late", "daos": [expected]}


def test_words_are_told_when_they_come_whole() -> None:
    ear = Ear("prepare", "up")
    assert ear.hear("= phase prepare\n| Reading ") == [{"phase": "prepare"}]
    assert ear.hear("web\n| half") == [{"phase": "prepare", "lines": ["Reading web"]}]
    assert ear.hear(" a word\n= result ok\n= phase up\n")[0] == {"phase": "prepare", "lines": ["half a word"]}
    assert ear.told[-1] == {"phase": "up"}
    assert not ear.listener.complete
    ear.hear("= effect changed\n= result ok\n")
    assert ear.listener.complete
    assert ear.listener.result(0, "")["changed"]


@pytest.mark.parametrize("phase", ["build", "pull"])
def test_build_and_pull_are_announced_when_they_have_something_to_do(phase: str) -> None:
    idle = Ear(phase)
    assert idle.hear(f"= phase {phase}\n= effect none\n= result ok\n") == [{"phase": phase, "end": end()}]

    busy = Ear(phase)
    assert busy.hear(f"= phase {phase}\n") == []
    assert busy.hear("| #1 building\n")[0] == {"phase": phase}
    assert busy.hear("= result ok\n") == [{"phase": phase, "end": end()}]

    failed = Ear(phase)
    told = failed.hear(f"= phase {phase}\n= reason TIMEOUT\n= detail late\n= result failed\n")
    assert [set(message) for message in told] == [{"phase"}, {"phase", "end"}]


def test_a_warning_of_compose_is_told_once_and_belongs_to_its_phase() -> None:
    ear = Ear("prepare", "up")
    warning = '| time="2026-01-01T00:00:00Z" level=warning msg="The \\"A\\" variable is not set."\n'
    told = ear.hear("= phase prepare\n| before\n", warning, warning, "| after\n= result ok\n= phase up\n", warning)
    text = 'The "A" variable is not set.'
    assert told == [
        {"phase": "prepare"},
        {"phase": "prepare", "lines": ["before"]},
        {"phase": "prepare", "warnings": [text]},
        {"phase": "prepare", "lines": ["after"]},
        {"phase": "prepare", "end": end(warnings=[text])},
        {"phase": "up"},
    ]
    assert ear.hear("= result ok\n") == [{"phase": "up", "end": end()}]


def test_the_containers_are_those_that_were_seen_last() -> None:
    seen = {"id": "1", "service": "web", "name": "/shop-web-1", "image": "demo:1", "hash": "x", "ports": [""]} | {
        "state": "running"
    }
    ear = Ear("up")
    ear.hear("= phase up\n= containers\n", f"= container {json.dumps({**seen, 'id': '0', 'name': '/old'})}\n")
    ear.hear("= containers\n", f"= container {json.dumps(seen)}\n", "= result ok\n")
    (ended,) = [message["end"] for message in ear.told if "end" in message]
    assert [(found["name"], found["service"], found["ports"]) for found in ended["containers"]] == [
        ("shop-web-1", "web", [])
    ]


@pytest.mark.parametrize(
    "fact",
    [
        "= container {",
        "= container []",
        '= container {"id": 1}',
        "= ask everything",
        "= ask recovery",
        '= model {"services": 5}\n= ask recovery',
    ],
)
def test_what_cannot_be_understood_fails_the_phase(fact: str) -> None:
    ear = Ear("recover")
    ear.hear(f"= phase recover\n{fact}\n= result ok\n")
    assert ear.listener.complete
    ended = ear.told[-1]["end"]
    assert (ended["failed"], ended["reason"]) == (True, "TASK_FAILED")
    assert ended["detail"].startswith("The host sent something that daos does not understand: ")


def test_a_character_in_two_pieces_is_one() -> None:
    ear = Ear("up")
    ear.hear("= phase up\n")
    first, second = "| ü\n".encode()[:3], "| ü\n".encode()[3:]
    ear.listener.hear(first)
    ear.listener.hear(second)
    assert ear.lines() == ["ü"]


def test_a_login_that_greets_is_not_listened_to() -> None:
    ear = Ear("up")
    ear.hear("Welcome!\nfortune: . \n= phase up\n= effect none\n= result ok\n")
    assert not ear.listener.result(0, "")["failed"]
    assert ear.lines() == []


@pytest.mark.parametrize(
    ("rc", "stdout", "stderr", "words"),
    [
        (127, "", "sh: 1: /bin/sh: not found\n\n", "ended with status 127: sh: 1: /bin/sh: not found"),
        (1, "This account is currently not available.\n", "", "status 1: This account is currently not available."),
        (137, "\0= phase prepare\n| Container web Started\n", "", "status 137: it said nothing"),
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


class Answering:
    """A listener that notes when it has heard what, and answers a question."""

    def __init__(self, question: bytes = b"", answer: bytes = b"") -> None:
        self.question = question
        self.answer = answer
        self.heard: list[tuple[float, bytes]] = []
        self.is_cut = False

    def check_time(self) -> None:
        """It has all the time there is."""

    @property
    def complete(self) -> bool:
        return any(chunk.endswith(b"end\n") for _, chunk in self.heard)

    def hear(self, chunk: bytes) -> bytes:
        self.heard.append((time.monotonic(), chunk))
        return self.answer if self.question and self.question in chunk else b""


def test_a_program_is_heard_while_it_runs() -> None:
    listener = Answering()
    script = "echo one; read word; echo $word >&2; sleep 1; echo two; exit 7"
    rc, stderr = plugin.stream(["sh", "-c", script], b"x\n" * 100_000, listener)
    assert (rc, stderr) == (7, b"x\n")
    assert [chunk for _, chunk in listener.heard] == [b"one\n", b"two\n"]
    assert listener.heard[1][0] - listener.heard[0][0] > 0.5


def test_a_program_is_answered_while_it_runs() -> None:
    """Also with more than a pipe holds, and after all that came before was read."""
    listener = Answering(b"ask", b"y" * 300_000 + b"\n")
    rc, stderr = plugin.stream(["sh", "-c", "read word; echo ask; head -c 300001 | wc -c; echo end"], b"x\n", listener)
    assert (rc, stderr) == (0, b"")
    assert b"".join(chunk for _, chunk in listener.heard).split() == [b"ask", b"300001", b"end"]


def test_a_program_that_has_said_everything_gets_the_end_of_its_input() -> None:
    listener = Answering()
    rc, _ = plugin.stream(["sh", "-c", "echo end; cat >/dev/null"], b"x\n", listener)
    assert rc == 0


def test_a_program_that_closes_its_input_is_no_trouble() -> None:
    listener = Answering(b"ask", b"y" * 1_000_000)
    rc, _ = plugin.stream(["sh", "-c", "echo ask; exec <&-; sleep 0.2; exit 3"], b"x\n" * 100_000, listener)
    assert rc == 3
