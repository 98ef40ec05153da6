"""What the script prints becomes events, and what a hostile host sends is bounded, typed, and ended."""

import json
import os
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Mapping
from pathlib import Path

import pytest

from db.containers import Container, ContainerState
from db.phase import Phase, PhaseOutcome
from runner.host import stream as host_stream
from runner.host.answers import MAX_SHOWN_OF_CONTAINERS, Answers
from runner.host.delivery import Delivery, pack
from runner.host.stream import stream
from runner.host.text import MAX_LINE, printable
from runner.play import listener
from runner.play.event import Event, Kind, Marker, MarkerState, PhaseResult, displayed
from runner.play.listener import EVENTS_AT_ONCE, Listener
from runner.play.play import LINE_LIMIT
from runner.spec.run import ProjectFile

ROOT = Path(__file__).parents[3]
PHASES = (Phase.PREPARE, Phase.BUILD, Phase.PULL, Phase.UP, Phase.VERIFY)
BEGUN = b"= phase prepare\n"
LIMITS = {Phase.PREPARE: 30.0, Phase.BUILD: 30.0}


class Ear:
    """A listener, and what it has emitted."""

    def __init__(self, *phases: Phase, limits: Mapping[Phase, float] | None = None) -> None:
        self.now = 0.0
        self.events: list[Event] = []
        self.listener = Listener(phases or PHASES, Answers("shop"), self.events.extend, limits, lambda: self.now)

    def receive(self, *chunks: bytes | str) -> list[Event]:
        """What is emitted for words that come at once."""
        before = len(self.events)
        for chunk in chunks:
            self.listener.receive(chunk if isinstance(chunk, bytes) else chunk.encode())
        return self.events[before:]

    def end(self, *chunks: bytes) -> Event | None:
        """The end of the phase after these chunks, None while it goes on."""
        self.receive(*chunks)
        return self.listener.ends[-1] if self.listener.ends else None

    def failure(self, *chunks: bytes) -> PhaseResult:
        """The result of a phase that fails after these chunks."""
        return failed(self.end(*chunks))

    @property
    def lines(self) -> list[str]:
        return [line for event in self.events for line in event.lines]


def failed(end: Event | None) -> PhaseResult:
    """The result of a phase that has failed."""
    assert end is not None
    assert end.kind is Kind.FAILED
    assert end.result is not None
    return end.result


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
    ear = Ear()
    result = ear.failure(BEGUN, line + b"\n")
    assert (result.reason, result.detail) == ("TASK_FAILED", ear.listener.ends[0].message)
    assert ear.listener.ends[0].message.startswith("The host sent something that daos does not understand: ")
    assert len(ear.listener.ends[0].message) <= MAX_LINE
    assert ear.listener.is_aborted


def test_nothing_is_believed_after_the_end() -> None:
    ear = Ear()
    ear.receive(BEGUN, b"= result failed\n= phase build\n= result ok\n| more\n")
    assert [event.kind for event in ear.events] == [Kind.PHASE, Kind.FAILED]
    assert ear.listener.receive(b"= ask archive\n") == b""


@pytest.mark.parametrize("fact", [b"= changed ./%d\n", b"= hash s%d 1\n", b"= image sha256:%d\n", b"= absent %d\n"])
def test_facts_of_a_kind_are_bounded(fact: bytes) -> None:
    result = Ear().failure(BEGUN, *(b"".join(fact % (i * 1000 + n) for n in range(1000)) for i in range(6)))
    assert "more than 5000" in str(result.detail)


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
    ear = Ear()
    ear.receive(BEGUN)
    tracemalloc.start()
    try:
        while not ear.listener.is_complete:
            ear.listener.receive(flood)
            ear.events.clear()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert ear.listener.ends[0].message == "The host sent more data than daos accepts; the play was ended."
    assert peak < 160 * 1024 * 1024  # a report of 32 MiB, and what it takes to add to it


def test_a_host_that_lets_a_phase_go_on_is_ended_from_here() -> None:
    ear = Ear(limits=LIMITS)
    ear.receive(BEGUN, b"\0")
    ear.now = 90.0
    ear.listener.check_time()
    assert not ear.listener.ends
    ear.now = 90.1
    ear.listener.check_time()
    assert ear.listener.is_aborted
    result = failed(ear.listener.ends[0])
    sentence = "Prepare did not finish within 30 s, and the host did not end it."
    assert (result.reason, result.detail) == ("TIMEOUT", sentence)


def test_each_phase_has_its_own_time() -> None:
    ear = Ear(Phase.PREPARE, Phase.BUILD, limits=LIMITS)
    ear.receive(BEGUN)
    ear.now = 80.0
    ear.receive(b"= result ok\n= phase build\n")
    ear.now = 160.0
    ear.listener.check_time()
    assert not ear.listener.is_aborted


@pytest.mark.parametrize("said", [b"", BEGUN + b"= result ok\n"])
def test_a_host_that_begins_no_phase_is_ended_from_here(said: bytes) -> None:
    ear = Ear(Phase.PREPARE, Phase.BUILD, limits=LIMITS)
    ear.now = 80.0
    ear.receive(said or b"\0")
    ear.now = 170.1
    ear.listener.check_time()
    assert ear.listener.is_aborted
    assert failed(ear.listener.ends[-1]).reason == "TIMEOUT"


def test_a_host_that_goes_on_after_the_end_is_ended_and_has_succeeded() -> None:
    ear = Ear(Phase.PREPARE, limits=LIMITS)
    ear.receive(BEGUN, b"= result ok\n")
    ear.now = 60.0
    ear.listener.check_time()
    assert not ear.listener.is_aborted
    ear.now = 60.1
    ear.listener.check_time()
    assert ear.listener.is_aborted
    assert ear.listener.conclude(-15, "")["failed"] is False


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
    monkeypatch.setattr(listener, "GRACE", 0.2)
    monkeypatch.setattr(host_stream, "KILL_AFTER", 0.2)
    ear = Listener([Phase.PREPARE, Phase.BUILD], Answers("shop"), lambda events: None, dict.fromkeys(PHASES, 1.0))
    rc, _ = stream(beating(before), b"\n", ear)
    assert rc == -signal.SIGKILL
    result = failed(ear.ends[-1])
    assert result.reason == "TIMEOUT"
    assert str(result.detail).endswith(" did not finish within 1 s, and the host did not end it.")


def test_a_host_that_asks_and_does_not_read_is_ended() -> None:
    delivery = Delivery.read(pack({"compose.yaml": ProjectFile(os.urandom(20 * 1024 * 1024))}))
    ear = Listener([Phase.PREPARE], Answers("shop", delivery), lambda events: None)
    script = "printf '= phase prepare\n= ask archive\n'; exec sleep 600"
    stream(["/bin/sh", "-c", script], b"\n", ear)
    assert ear.ends[0].message == "The host asks questions but does not read the answers; the play was ended."


MEASURE = """
import json, resource, sys
from db.phase import Phase
from runner.host.answers import Answers
from runner.host.stream import stream
from runner.play.event import displayed
from runner.play.listener import Listener

def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
longest = 0
def emit(events):
    global longest
    longest = max(longest, len(displayed(events)))
listener = Listener([Phase.PREPARE], Answers("shop"), emit)
before = peak()
stream(["/bin/sh", "-c", sys.argv[1]], b"\\n", listener)
listener.conclude(0, "")
print(json.dumps([peak() - before, longest, listener.ends[0].kind]))
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
    measured = subprocess.run([sys.executable, "-c", MEASURE, script], cwd=ROOT, stdout=subprocess.PIPE, check=True)
    grown, longest, end = json.loads(measured.stdout)
    assert end == Kind.FAILED
    assert grown < most
    assert longest < LINE_LIMIT


def test_no_message_is_longer_than_the_server_reads() -> None:
    ear = Ear()
    line = b"| " + "\U0001f4a3".encode() * 1999 + b"\n"
    ear.receive(BEGUN, *[line] * 5000, b"= result failed\n")
    assert max(len(displayed([event])) for event in ear.events) * EVENTS_AT_ONCE < LINE_LIMIT


def test_containers_that_are_described_at_length_are_left_out_with_a_warning() -> None:
    ear = Ear()
    shown = {"service": "web", "image": "x" * 1000, "state": "running", "ports": ["x" * 1000] * 2}
    facts = [
        f"= container {json.dumps({**shown, 'id': f'c{n}', 'name': f'web-{n:03}'})}\n".encode() for n in range(100)
    ]
    end = ear.end(BEGUN, b"= containers\n", *facts, b"= result ok\n")
    assert end is not None
    assert end.result is not None
    assert sum(len(json.dumps(found.write())) for found in end.result.containers) <= MAX_SHOWN_OF_CONTAINERS
    left_out = 100 - len(end.result.containers)
    assert end.result.warnings == [
        f"{left_out} of 100 containers are not shown: what the host reports of them is too long."
    ]


@pytest.mark.parametrize("question", ["archive", "plan", "why", "recovery"])
def test_a_question_is_not_answered_for_ever(question: str) -> None:
    delivery = Delivery.read(pack({"compose.yaml": ProjectFile(b"services: {}")}))
    ear = Listener([Phase.PREPARE], Answers("shop", delivery), lambda events: None)
    facts = b'= model {"services":{}}\n= tree /t\n= directory /d\n'
    sent = ear.receive(BEGUN + facts + f"= ask {question}\n".encode() * 100)
    assert ear.ends[0].message.endswith(f"the host asks {question!r} too often")
    assert len(sent) < 1024 * 1024


def test_what_a_login_shell_prints_first_is_not_believed() -> None:
    ear = Ear()
    assert ear.receive(b"= changed everything\n= result failed\n") == []
    assert ear.end(BEGUN, b"= result ok\n") == Event(Kind.OK, Phase.PREPARE, result=PhaseResult())


def lines(phase: Phase, *those: str) -> Event:
    return Event(Kind.LINES, phase, lines=list(those))


def test_words_are_emitted_apart_from_facts() -> None:
    ear = Ear(Phase.UP)
    events = ear.receive(
        ". \n= phase up\n| = result ok\n|  indented\n| \n"
        "= reason TIMEOUT\n= detail too late\n= effect changed\n= result failed\n"
    )
    result = PhaseResult(changed=True, reason="TIMEOUT", detail="too late")
    assert events == [
        Event(Kind.PHASE, Phase.UP),
        Event(Kind.LINES, Phase.UP, lines=["= result ok", " indented", ""]),
        Event(Kind.FAILED, Phase.UP, message="too late", result=result),
    ]
    assert ear.listener.conclude(0, "") == {
        "changed": True,
        "failed": True,
        "msg": "too late",
        "reason": "TIMEOUT",
        "containers": [],
    }


def test_words_are_emitted_when_they_come_whole() -> None:
    ear = Ear(Phase.PREPARE, Phase.UP)
    assert ear.receive("= phase prepare\n| Reading ") == [Event(Kind.PHASE, Phase.PREPARE)]
    assert ear.receive("web\n| half") == [lines(Phase.PREPARE, "Reading web")]
    assert ear.receive(" a word\n= result ok\n= phase up\n")[0] == lines(Phase.PREPARE, "half a word")
    assert ear.events[-1] == Event(Kind.PHASE, Phase.UP)
    assert not ear.listener.is_complete
    ear.receive("= effect changed\n= result ok\n")
    assert ear.listener.is_complete
    assert ear.listener.conclude(0, "")["changed"]


@pytest.mark.parametrize("phase", [Phase.BUILD, Phase.PULL])
def test_build_and_pull_are_announced_when_they_have_something_to_do(phase: Phase) -> None:
    end = Event(Kind.OK, phase, result=PhaseResult())
    idle = Ear(phase)
    assert idle.receive(f"= phase {phase.word}\n= effect none\n= result ok\n") == [end]

    busy = Ear(phase)
    assert busy.receive(f"= phase {phase.word}\n") == []
    assert busy.receive("| #1 building\n")[0] == Event(Kind.PHASE, phase)
    assert busy.receive("= result ok\n") == [end]

    late = Ear(phase)
    events = late.receive(f"= phase {phase.word}\n= reason TIMEOUT\n= detail late\n= result failed\n")
    assert [event.kind for event in events] == [Kind.PHASE, Kind.FAILED]


def test_a_warning_of_compose_is_emitted_once_and_belongs_to_its_phase() -> None:
    ear = Ear(Phase.PREPARE, Phase.UP)
    warning = '| time="2026-01-01T00:00:00Z" level=warning msg="The \\"A\\" variable is not set."\n'
    events = ear.receive("= phase prepare\n| before\n", warning, warning, "| after\n= result ok\n= phase up\n", warning)
    text = 'The "A" variable is not set.'
    assert events == [
        Event(Kind.PHASE, Phase.PREPARE),
        lines(Phase.PREPARE, "before"),
        Event(Kind.LINES, Phase.PREPARE, lines=[text], is_warning=True),
        lines(Phase.PREPARE, "after"),
        Event(Kind.OK, Phase.PREPARE, result=PhaseResult(warnings=[text])),
        Event(Kind.PHASE, Phase.UP),
    ]
    assert ear.receive("= result ok\n") == [Event(Kind.OK, Phase.UP, result=PhaseResult())]


def test_the_containers_are_those_that_were_seen_last() -> None:
    seen = {"id": "1", "service": "web", "name": "/shop-web-1", "image": "demo:1", "hash": "x", "ports": [""]} | {
        "state": "running"
    }
    ear = Ear(Phase.UP)
    ear.receive("= phase up\n= containers\n", f"= container {json.dumps({**seen, 'id': '0', 'name': '/old'})}\n")
    ear.receive("= containers\n", f"= container {json.dumps(seen)}\n", "= result ok\n")
    [result] = [event.result for event in ear.events if event.result is not None]
    assert result.containers == [Container("shop-web-1", "web", "demo:1", ContainerState.RUNNING)]


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
    ear = Ear(Phase.RECOVER)
    ear.receive(f"= phase recover\n{fact}\n= result ok\n")
    assert ear.listener.is_complete
    assert failed(ear.events[-1]).reason == "TASK_FAILED"
    assert ear.events[-1].message.startswith("The host sent something that daos does not understand: ")


def test_a_character_in_two_pieces_is_one() -> None:
    ear = Ear(Phase.UP)
    ear.receive("= phase up\n")
    first, second = "| ü\n".encode()[:3], "| ü\n".encode()[3:]
    ear.listener.receive(first)
    ear.listener.receive(second)
    assert ear.lines == ["ü"]


def test_a_login_that_greets_is_not_listened_to() -> None:
    ear = Ear(Phase.UP)
    ear.receive("Welcome!\nfortune: . \n= phase up\n= effect none\n= result ok\n")
    assert not ear.listener.conclude(0, "")["failed"]
    assert ear.lines == []


@pytest.mark.parametrize(
    ("rc", "stdout", "stderr", "words"),
    [
        (127, "", "sh: 1: /bin/sh: not found\n\n", "ended with status 127: sh: 1: /bin/sh: not found"),
        (1, "This account is currently not available.\n", "", "status 1: This account is currently not available."),
        (137, "\0= phase prepare\n| Container web Started\n", "", "status 137: it had no output"),
    ],
)
def test_a_command_without_a_result_failed(rc: int, stdout: str, stderr: str, words: str) -> None:
    ear = Ear(Phase.PREPARE, Phase.UP)
    ear.receive(stdout)
    assert ear.listener.conclude(rc, stderr)["failed"]
    assert ear.events[-1].phase is Phase.PREPARE
    assert failed(ear.events[-1]).reason == "TASK_FAILED"
    assert words in ear.events[-1].message


def test_a_command_that_dies_between_two_phases_failed_in_the_next() -> None:
    ear = Ear(Phase.PREPARE, Phase.PULL)
    ear.receive("= phase prepare\n= result ok\n")
    assert ear.listener.conclude(137, "")["failed"]
    assert [end.phase for end in ear.listener.ends] == [Phase.PREPARE, Phase.PULL]


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
    assert printable(text) == shown


def test_endless_words_keep_their_beginning_and_their_end() -> None:
    ear = Ear(Phase.UP)
    ear.receive("= phase up\n", *(f"| {number}\n" for number in range(5000)))
    assert ear.lines[-1] == "1999"
    ear.receive(*(f"| {number}\n" for number in range(5000, 10_000)), "= result ok\n")
    kept = ear.lines
    assert (kept[0], kept[-1], kept[2000]) == ("0", "9999", "(6000 lines left out)")
    assert len(kept) == 4001


@pytest.mark.parametrize(
    ("noted", "marker"),
    [
        ("", None),
        ("= marker run=1\n= marker phase=up\n= marker state=running\n", Marker("1", Phase.UP, MarkerState.RUNNING)),
        ("= marker run=1\n= marker phase=later\n= marker state=resting\n", Marker("1")),
    ],
)
def test_a_marker_is_read_as_far_as_it_is_known(noted: str, marker: Marker | None) -> None:
    """It may be of a run of another release."""
    ear = Ear(Phase.RECOVER)
    ear.receive(f"= phase recover\n= busy true\n{noted}= verdict failed\n= result ok\n")
    result = PhaseResult(is_busy=True, marker=marker, verdict=PhaseOutcome.FAILED)
    assert ear.events[-1] == Event(Kind.OK, Phase.RECOVER, result=result)
