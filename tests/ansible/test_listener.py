"""The listener of the action plugin: what a hostile host sends is bounded, typed, and ended."""

import json
import os
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Mapping
from typing import Any

import pytest

from runner.host.answers import MOST_SHOWN_OF_CONTAINERS, Answers
from runner.host.delivery import Delivery, pack
from runner.play.play import LINE_LIMIT
from runner.spec.run import ProjectFile
from tests.ansible.machine import PROJECT, load_plugin

PHASES = ("prepare", "build", "pull", "up", "verify")
BEGUN = b"= phase prepare\n"
MESSAGES_AT_ONCE: int = load_plugin().MESSAGES_AT_ONCE


class Heard:
    """A listener of a deployment, and what it has passed on."""

    def __init__(self, phases: tuple[str, ...] = PHASES, seconds: Mapping[str, float] | None = None) -> None:
        self.now = 0.0
        self.messages: list[dict[str, Any]] = []
        self.listener = load_plugin().Listener(
            list(phases), Answers("shop"), self.messages.extend, seconds, lambda: self.now
        )

    def hear(self, *chunks: bytes) -> dict[str, Any]:
        """The end of the phase after these chunks, {} while it goes on."""
        for chunk in chunks:
            self.listener.hear(chunk)
        return dict(self.listener.ends[-1]) if self.listener.ends else {}


@pytest.mark.parametrize(
    "line",
    [
        b"= phase up",
        b"= phase prepare",
        b"= phase " + b"x" * 100_000,
        b"= result maybe",
        b"= verdict perhaps",
        b"= busy 1",
        b"= marker secret=1",
        b"= unknown 1",
        b"= container {}",
        b"= container {" + b'"a":{' * 5000,
        b"= ask everything",
        b"= ask plan",
    ],
)
def test_what_is_not_understood_ends_the_play(line: bytes) -> None:
    heard = Heard()
    end = heard.hear(BEGUN, line + b"\n")
    assert (end["failed"], end["reason"]) == (True, "TASK_FAILED")
    assert end["detail"].startswith("The host sent something that daos does not understand: ")
    assert len(end["detail"]) <= 2000
    assert heard.listener.is_cut


def test_nothing_is_believed_after_the_end() -> None:
    heard = Heard()
    heard.hear(BEGUN, b"= result failed\n= phase build\n= result ok\n| more\n")
    assert [message for message in heard.messages if "end" in message or "lines" in message] == heard.messages[1:2]
    assert heard.listener.hear(b"= ask archive\n") == b""


@pytest.mark.parametrize("fact", [b"= changed ./%d\n", b"= hash s%d 1\n", b"= image sha256:%d\n", b"= absent %d\n"])
def test_facts_of_a_kind_are_bounded(fact: bytes) -> None:
    end = Heard().hear(BEGUN, *(b"".join(fact % (i * 1000 + n) for n in range(1000)) for i in range(6)))
    assert "more than 5000" in end["detail"]


@pytest.mark.parametrize(
    "flood",
    [
        b"x" * 65536,
        b"= model " + b"x" * 65528,
        b"| " + b"y" * 65533 + b"\n",
        (b"| " + b"z" * 1021 + b"\n") * 64,
        (b"? " + b"w" * 1021 + b"\n") * 64,
        b"\0" * 65536,
    ],
)
def test_a_flood_ends_the_play_and_takes_little_memory(flood: bytes) -> None:
    heard = Heard()
    heard.hear(BEGUN)
    tracemalloc.start()
    try:
        while not heard.listener.complete:
            heard.listener.hear(flood)
            heard.messages.clear()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert heard.listener.ends[0]["detail"] == "The host sent more than daos takes: the play was ended."
    assert peak < 160 * 1024 * 1024  # a report of 32 MiB, and what it takes to add to it


def test_a_host_that_lets_a_phase_go_on_is_ended_from_here() -> None:
    heard = Heard(seconds={"prepare": 90.0})
    heard.hear(BEGUN, b"\0")
    heard.now = 90.0
    heard.listener.check_time()
    assert not heard.listener.ends
    heard.now = 90.1
    heard.listener.check_time()
    assert heard.listener.is_cut
    assert (heard.listener.ends[0]["reason"], heard.listener.ends[0]["detail"]) == (
        "TIMEOUT",
        "Prepare did not finish within 30 s, and the host did not end it.",
    )


def test_each_phase_has_its_own_time() -> None:
    heard = Heard(("prepare", "build"), {"prepare": 90.0, "build": 90.0})
    heard.hear(BEGUN)
    heard.now = 80.0
    heard.hear(b"= result ok\n= phase build\n")
    heard.now = 160.0
    heard.listener.check_time()
    assert not heard.listener.is_cut


@pytest.mark.parametrize("said", [b"", BEGUN + b"= result ok\n"])
def test_a_host_that_begins_no_phase_is_ended_from_here(said: bytes) -> None:
    heard = Heard(("prepare", "build"), {"prepare": 90.0, "build": 90.0})
    heard.now = 80.0
    heard.hear(said or b"\0")
    heard.now = 170.1
    heard.listener.check_time()
    assert heard.listener.is_cut
    assert heard.listener.ends[-1]["reason"] == "TIMEOUT"


def test_a_host_that_goes_on_after_the_end_is_ended_and_has_succeeded() -> None:
    heard = Heard(("prepare",), {"prepare": 90.0})
    heard.hear(BEGUN, b"= result ok\n")
    heard.now = 60.0
    heard.listener.check_time()
    assert not heard.listener.is_cut
    heard.now = 60.1
    heard.listener.check_time()
    assert heard.listener.is_cut
    assert heard.listener.result(-15, "")["failed"] is False


def beating(before: bytes) -> list[str]:
    """A program that prints something and then only heartbeats, and does not end when it is asked to."""
    lines = [
        "import signal, time",
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)",
        f"print({before.decode()!r}, end='', flush=True)",
        "while True: print(end=chr(0), flush=True); time.sleep(0.1)",
    ]
    return [sys.executable, "-c", "\n".join(lines)]


@pytest.mark.parametrize("before", [b"", BEGUN, BEGUN + b"= result ok\n"])
def test_a_program_that_only_sends_heartbeats_is_ended(before: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = load_plugin()
    for name in ("GRACE", "KILL_AFTER"):
        monkeypatch.setattr(plugin, name, 0.2)
    limits = plugin.phase_limits(["prepare", "build"], {"daos_timeouts": {"prepare": 1.0, "build": 1.0}})
    listener = plugin.Listener(["prepare", "build"], Answers("shop"), lambda messages: None, limits)
    rc, _ = plugin.stream(beating(before), b"\n", listener)
    assert rc == -signal.SIGKILL
    assert listener.ends[-1]["reason"] == "TIMEOUT"
    assert listener.ends[-1]["detail"].endswith(" did not finish within 1 s, and the host did not end it.")


def test_a_host_that_asks_and_does_not_read_is_ended() -> None:
    delivery = Delivery.read(pack({"compose.yaml": ProjectFile(os.urandom(20 * 1024 * 1024))}))
    listener = load_plugin().Listener(["prepare"], Answers("shop", delivery), lambda messages: None)
    script = "printf '= phase prepare\n= ask archive\n'; exec sleep 600"
    load_plugin().stream(["/bin/sh", "-c", script], b"\n", listener)
    assert listener.ends[0]["detail"] == "The host asks, and does not read the answers: the play was ended."


MEASURE = """
import resource, sys
from runner.host.answers import Answers
from tests.ansible.machine import load_plugin

plugin = load_plugin()
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
longest, count = 0, 0
def tell(messages):
    global longest
    longest = max(longest, len(plugin.json.dumps(messages)))
listener = plugin.Listener(["prepare"], Answers("shop"), tell)
before = peak()
plugin.stream(["/bin/sh", "-c", sys.argv[1]], b"\\n", listener)
listener.result(0, "")
print(plugin.json.dumps([peak() - before, longest, listener.ends[0]]))
"""


@pytest.mark.parametrize(
    ("flood", "most"),
    [
        ("tr '\\0' x </dev/zero", 64),
        ("yes \"| $(head -c 8000 /dev/zero | tr '\\0' x)\"", 96),
        ("yes '| \xf0\x9f\x92\xa3' | tr -d '\\n'", 64),
        ("printf '= model '; tr '\\0' x </dev/zero", 200),
        ("printf '= model ['; yes '[],' | tr -d '\\n' | head -c 30000000; echo; echo '= ask plan'", 200),
        ('yes \'= container {"id":"a","ports":["80"]}\'', 64),
        ('printf \'= container {"id":"a","ports":[\'; yes \'"",\' | tr -d \'\\n\' | head -c 30000000; echo', 200),
        ("yes '= ask archive'", 64),
        ("yes >&2", 64),
    ],
)
def test_what_a_hostile_host_sends_takes_little_memory(flood: str, most: int) -> None:
    """The peak of a process that listens to a host, in MiB above what it needs itself."""
    script = f"printf '= phase prepare\n'; {flood if '>&2' not in flood else 'timeout 3 ' + flood}"
    measured = subprocess.run(
        [sys.executable, "-c", MEASURE, script], cwd=PROJECT.parent, stdout=subprocess.PIPE, check=True
    )
    grown, longest, end = json.loads(measured.stdout)
    assert end["failed"]
    assert grown < most
    assert longest < LINE_LIMIT


def test_no_message_is_longer_than_the_server_reads() -> None:
    heard = Heard()
    line = b"| " + "\U0001f4a3".encode() * 1999 + b"\n"
    heard.hear(BEGUN, *[line] * 5000, b"= result failed\n")
    assert max(len(json.dumps(message)) for message in heard.messages) * MESSAGES_AT_ONCE < LINE_LIMIT


def test_containers_that_are_described_at_length_are_left_out_with_a_warning() -> None:
    heard = Heard()
    shown = {"service": "web", "image": "x" * 1000, "state": "running", "ports": ["x" * 1000] * 2}
    facts = [
        f"= container {json.dumps({**shown, 'id': f'c{n}', 'name': f'web-{n:03}'})}\n".encode() for n in range(100)
    ]
    end = heard.hear(BEGUN, b"= containers\n", *facts, b"= result ok\n")
    assert sum(len(json.dumps(found)) for found in end["containers"]) <= MOST_SHOWN_OF_CONTAINERS
    left_out = 100 - len(end["containers"])
    assert end["warnings"] == [
        f"{left_out} of 100 containers are not shown: what the host reports of them is too long."
    ]


@pytest.mark.parametrize("question", ["archive", "plan", "why", "recovery"])
def test_a_question_is_not_answered_for_ever(question: str) -> None:
    delivery = Delivery.read(pack({"compose.yaml": ProjectFile(b"services: {}")}))
    listener = load_plugin().Listener(["prepare"], Answers("shop", delivery), lambda messages: None)
    facts = b'= model {"services":{}}\n= tree /t\n= directory /d\n'
    sent = listener.hear(BEGUN + facts + f"= ask {question}\n".encode() * 100)
    assert listener.ends[0]["detail"].endswith(f"the host asks {question!r} once more")
    assert len(sent) < 1024 * 1024


def test_only_the_end_of_stderr_is_kept() -> None:
    flood = "import sys\nfor n in range(1000): sys.stderr.write('x' * 65536)\nsys.stderr.write('the reason')"
    _, stderr = load_plugin().stream([sys.executable, "-c", flood], b"\n", Heard().listener)
    assert len(stderr) <= 64 * 1024
    assert stderr.endswith(b"the reason")


def test_what_a_login_shell_prints_first_is_not_believed() -> None:
    heard = Heard()
    assert heard.hear(b"= changed everything\n= result failed\n") == {}
    assert heard.hear(BEGUN, b"= result ok\n")["failed"] is False
    assert json.dumps(heard.messages)
