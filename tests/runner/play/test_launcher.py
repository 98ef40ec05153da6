"""Which way plays are started: warm where that is possible, cold where it is refused."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from runner.play.channel import Refused
from runner.play.launcher import Launcher
from runner.play.play import Process
from runner.play.request import PlayRequest


class FakeChannel:
    """A channel to a process that is not there."""

    pid = 1

    def send(self, message: object) -> None: ...

    async def read(self) -> dict[str, Any] | None:
        return None

    async def read_stderr(self) -> str | None:
        return None

    async def wait(self) -> bool:
        return True

    def kill(self) -> None: ...


class FakeStarter:
    """Starts nothing, and remembers what it was asked for; each answer is an error to raise, or None."""

    def __init__(self, *answers: Exception | None) -> None:
        self._answers: Iterable[Exception | None] = iter(answers)
        self.requests: list[PlayRequest] = []

    async def __call__(self, request: PlayRequest, /) -> Process:
        self.requests.append(request)
        if (error := next(iter(self._answers), None)) is not None:
            raise error
        return Process(FakeChannel(), request)


REQUEST = PlayRequest(Path("run"), "deploy.yml", "cookie", {})


async def test_a_play_is_started_warm() -> None:
    warm, cold = FakeStarter(), FakeStarter()
    launcher = Launcher(warm, cold)
    await launcher.start(REQUEST)
    assert (warm.requests, cold.requests) == ([REQUEST], [])
    assert launcher.plays == Counter(warm=1, cold=0)


async def test_a_play_that_is_refused_is_started_cold_and_the_next_one_is_tried_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    warm, cold = FakeStarter(Refused("it is tested")), FakeStarter()
    launcher = Launcher(warm, cold)
    with caplog.at_level("INFO"):
        await launcher.start(REQUEST)
        await launcher.start(REQUEST)
    assert (len(warm.requests), cold.requests) == (2, [REQUEST])
    assert launcher.plays == Counter(warm=1, cold=1)
    assert "cookie is started cold: it is tested" in caplog.text


async def test_without_warm_ansible_every_play_is_started_cold() -> None:
    cold = FakeStarter()
    launcher = Launcher(cold=cold)
    await launcher.start(REQUEST)
    assert cold.requests == [REQUEST]
    assert launcher.plays == Counter(warm=0, cold=1)


async def test_an_error_that_is_no_refusal_passes_through() -> None:
    launcher = Launcher(FakeStarter(OSError("no memory")), FakeStarter())
    with pytest.raises(OSError, match="no memory"):
        await launcher.start(REQUEST)
