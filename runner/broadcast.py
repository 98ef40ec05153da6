"""Who waits for news of what.  News has no content: it says "look again", and the database is read."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum, auto
from uuid import UUID


class Everything(Enum):
    """The topics without an id."""

    DEPLOYMENTS = auto()


Topic = UUID | Everything  # a deployment's id, a run's id, or all deployments


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


class Broadcast:
    """Listeners by topic.  A slow listener holds up nobody: it has one flag, and no queue that could grow."""

    def __init__(self) -> None:
        self._listeners: dict[Topic, set[Listener]] = {}

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

    def notify(self, *topics: Topic) -> None:
        """Tell all who listen to any of `topics` to look again."""
        for topic in topics:
            for listener in self._listeners.get(topic, ()):
                listener.notify()

    def close(self) -> None:
        """Wake everybody once, so that they notice the end."""
        for listeners in self._listeners.values():
            for listener in listeners:
                listener.notify()
