"""Who waits for news of what.  News has no content: it says "look again", and the database is read."""

import asyncio
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, TypeVar
from uuid import UUID

Shared = TypeVar("Shared")


class Everything(Enum):
    """The topics without an id."""

    DEPLOYMENTS = auto()
    CANCELS = auto()  # of runs that are being played


Topic = UUID | Everything  # a UUID is a deployment's id or a run's


class Listener:
    """Notices that there was news since it was last waited for, however much and however long ago."""

    def __init__(self) -> None:
        self._news = asyncio.Event()

    async def wait(self, timeout: float) -> None:  # noqa: ASYNC109 - the caller looks again either way
        """Return at the next news, or at once when there was some, or after `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                await self._news.wait()
        except TimeoutError:
            pass
        self._news.clear()

    def notify(self) -> None:
        self._news.set()


@dataclass
class _InCommon:
    """What some followers share, how many they are, and what is to be done after the last."""

    value: Any
    followers: int
    end: ExitStack


class Broadcast:
    """Listeners by topic.  A slow listener holds up nobody: it has one flag, and no queue that could grow."""

    def __init__(self) -> None:
        self._listeners: dict[Topic, set[Listener]] = {}
        self._in_common: dict[Hashable, _InCommon] = {}
        self._pass_on: Callable[[tuple[Topic, ...]], None] | None = None
        self.subscribers: Counter[str] = Counter(deployment=0, deployments=0, run=0, log=0)  # by what they follow

    @contextmanager
    def listen(self, topic: Topic) -> Iterator[Listener]:
        """A listener for news of `topic`.  Listen first and read then, or news in between is missed."""
        listener = Listener()
        self._listeners.setdefault(topic, set()).add(listener)
        try:
            yield listener
        finally:
            listeners = self._listeners[topic]
            listeners.discard(listener)
            if not listeners:
                del self._listeners[topic]

    @contextmanager
    def subscribed(self, to: str) -> Iterator[None]:
        """Count a subscriber while it follows."""
        self.subscribers[to] += 1
        try:
            yield
        finally:
            self.subscribers[to] -= 1

    @contextmanager
    def share(self, key: Hashable, opened: Callable[[], AbstractContextManager[Shared]]) -> Iterator[Shared]:
        """What all who share `key` have in common: `opened` for the first of them, closed after the last."""
        common = self._in_common.get(key)
        if common is None:
            end = ExitStack()
            common = self._in_common[key] = _InCommon(end.enter_context(opened()), 0, end)
        common.followers += 1
        try:
            yield common.value
        finally:
            common.followers -= 1
            if not common.followers:
                del self._in_common[key]
                common.end.close()

    def notify(self, *topics: Topic) -> None:
        """Tell all who listen to any of `topics` to look again, here and, where there is a wire, elsewhere."""
        self.hear(*topics)
        if self._pass_on is not None:
            self._pass_on(topics)

    def hear(self, *topics: Topic) -> None:
        """Tell those who listen here alone: another server has said so."""
        for topic in topics:
            for listener in self._listeners.get(topic, ()):
                listener.notify()

    def join(self, pass_on: Callable[[tuple[Topic, ...]], None]) -> None:
        """Have `pass_on` told all topics that there are news of here; it must return at once."""
        self._pass_on = pass_on

    def wake_all(self) -> None:
        """Wake everybody here once: news may have been missed, or the server stops."""
        for listeners in self._listeners.values():
            for listener in listeners:
                listener.notify()
