"""What a playing process is told: whole lines only, and a deadline that may be moved."""

import json
import os
from collections.abc import Iterator

import pytest

from runner.play.control import Orders, clock

STOP = {"stop": True}
FAR = 1e12  # seconds


class Pipe:
    """Orders and who gives them."""

    def __init__(self) -> None:
        descriptor, self._descriptor = os.pipe()
        self.orders = Orders(descriptor)
        self._both = [descriptor, self._descriptor]

    def say(self, *messages: object) -> None:
        self.write("".join(json.dumps(message) + "\n" for message in messages))

    def write(self, text: str) -> None:
        os.write(self._descriptor, text.encode())

    def end(self) -> None:
        os.close(self._both.pop())

    def close(self) -> None:
        for descriptor in self._both:
            os.close(descriptor)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.close()


def test_lines_that_come_at_once_are_words_of_their_own(pipe: Pipe) -> None:
    pipe.say({"playbook": "up.yml"}, STOP)
    assert pipe.orders.first() == {"playbook": "up.yml"}
    assert pipe.orders.next() == STOP


def test_a_line_that_comes_in_pieces_is_one(pipe: Pipe) -> None:
    pipe.write('{"st')
    assert not pipe.orders.is_over()
    pipe.write("op")
    assert not pipe.orders.is_over()
    pipe.write('": true}\n')
    assert pipe.orders.next() == STOP


def test_a_line_without_its_end_is_not_obeyed_and_does_not_hold_up_the_deadline(pipe: Pipe) -> None:
    deadline = clock() + 0.1
    pipe.say({"deadline": deadline})
    pipe.write(f'{{"deadline": {FAR}')
    assert pipe.orders.next() is None
    assert deadline <= clock() < deadline + 10


def test_a_line_that_is_cut_off_by_the_end_is_not_obeyed(pipe: Pipe) -> None:
    pipe.write('{"stop": true}')
    pipe.end()
    assert pipe.orders.first() is None
    assert pipe.orders.next() is None
    assert pipe.orders.is_over()


def test_without_a_deadline_only_the_end_is_one(pipe: Pipe) -> None:
    pipe.say({"playbook": "up.yml", "deadline": None})
    assert pipe.orders.first() is not None
    assert not pipe.orders.is_over()
    pipe.end()
    assert pipe.orders.is_over()


def test_the_first_word_may_carry_a_deadline_that_has_passed(pipe: Pipe) -> None:
    pipe.say({"playbook": "up.yml", "deadline": clock() - 1})
    assert pipe.orders.first() is not None
    assert pipe.orders.is_over()


def test_the_first_word_is_waited_for_beyond_the_deadline(pipe: Pipe) -> None:
    pipe.say({"deadline": clock() - 1}, {"begin": True})
    assert pipe.orders.first() == {"begin": True}


def test_each_deadline_replaces_the_last_one(pipe: Pipe) -> None:
    pipe.say({"deadline": FAR}, {"deadline": clock() - 1})
    assert pipe.orders.is_over()
    pipe.say({"deadline": FAR})
    assert not pipe.orders.is_over()


def test_a_deadline_that_was_moved_while_nobody_looked_counts(pipe: Pipe) -> None:
    pipe.say({"deadline": clock() - 1})
    assert pipe.orders.next() is None
    pipe.say({"deadline": FAR}, STOP)
    assert pipe.orders.next() == STOP


def test_a_word_is_heard_before_the_deadline(pipe: Pipe) -> None:
    pipe.say({"deadline": FAR})
    assert not pipe.orders.is_over()
    pipe.say(STOP)
    assert pipe.orders.next() == STOP
