"""A program is received and answered while it runs."""

import sys
import time

from runner.host.stream import MAX_STDERR, stream


class Answering:
    """A receiver that notes when it has received what, and answers a question."""

    def __init__(self, question: bytes = b"", answer: bytes = b"") -> None:
        self.question = question
        self.answer = answer
        self.received: list[tuple[float, bytes]] = []
        self.is_aborted = False

    def check_time(self) -> None:
        """It has all the time there is."""

    def abort(self, detail: str) -> None:
        raise AssertionError(detail)

    @property
    def is_complete(self) -> bool:
        return any(chunk.endswith(b"end\n") for _, chunk in self.received)

    def receive(self, chunk: bytes) -> bytes:
        self.received.append((time.monotonic(), chunk))
        return self.answer if self.question and self.question in chunk else b""


def test_a_program_is_received_while_it_runs() -> None:
    receiver = Answering()
    script = "echo one; read word; echo $word >&2; sleep 1; echo two; exit 7"
    rc, stderr = stream(["sh", "-c", script], b"x\n" * 100_000, receiver)
    assert (rc, stderr) == (7, b"x\n")
    assert [chunk for _, chunk in receiver.received] == [b"one\n", b"two\n"]
    assert receiver.received[1][0] - receiver.received[0][0] > 0.5


def test_a_program_is_answered_while_it_runs() -> None:
    """Also with more than a pipe holds, and after all that came before was read."""
    receiver = Answering(b"ask", b"y" * 300_000 + b"\n")
    rc, stderr = stream(["sh", "-c", "read word; echo ask; head -c 300001 | wc -c; echo end"], b"x\n", receiver)
    assert (rc, stderr) == (0, b"")
    assert b"".join(chunk for _, chunk in receiver.received).split() == [b"ask", b"300001", b"end"]


def test_a_program_that_has_said_everything_gets_the_end_of_its_input() -> None:
    receiver = Answering()
    rc, _ = stream(["sh", "-c", "echo end; cat >/dev/null"], b"x\n", receiver)
    assert rc == 0


def test_a_program_that_closes_its_input_is_no_trouble() -> None:
    receiver = Answering(b"ask", b"y" * 1_000_000)
    rc, _ = stream(["sh", "-c", "echo ask; exec <&-; sleep 0.2; exit 3"], b"x\n" * 100_000, receiver)
    assert rc == 3


def test_only_the_end_of_stderr_is_kept() -> None:
    flood = "import sys\nfor n in range(1000): sys.stderr.write('x' * 65536)\nsys.stderr.write('the reason')"
    _, stderr = stream([sys.executable, "-c", flood], b"\n", Answering())
    assert len(stderr) <= MAX_STDERR
    assert stderr.endswith(b"the reason")
