"""Notifications by topic.  A notification has no content: it means "read the database again"."""

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
    """The topics that have no id."""

    DEPLOYMENTS = auto()
    CANCELS = auto()  # of runs that are being played


Topic = UUID | Everything  # a UUID is the id of a deployment or a run


class Listener:
    """One subscriber to a topic.  It records whether it was notified since the last wait, not how often or when."""

    def __init__(self) -> None:
        self._is_notified = asyncio.Event()

    async def wait(self, timeout: float) -> None:  # noqa: ASYNC109 - the caller reads again in either case
        """Return at the next notification, immediately if there was one before, or after `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                await self._is_notified.wait()
        except TimeoutError:
            pass
        self._is_notified.clear()

    def notify(self) -> None:
        self._is_notified.set()


@dataclass
class _Shared:
    """A value that several subscribers share, their number, and the cleanup to run after the last one leaves."""

    value: Any
    users: int
    cleanup: ExitStack


class Broadcast:
    """Listeners by topic.  A slow listener delays no other: it has one flag and no queue that could grow."""

    def __init__(self) -> None:
        self._listeners: dict[Topic, set[Listener]] = {}
        self._shared: dict[Hashable, _Shared] = {}
        self._forward: Callable[[tuple[Topic, ...]], None] | None = None
        self.subscribers: Counter[str] = Counter(deployment=0, deployments=0, run=0, log=0)  # by kind of subscription

    @contextmanager
    def listen(self, topic: Topic) -> Iterator[Listener]:
        """Register a listener for `topic`.  Read the database only afterwards, or changes in between are missed."""
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
        """Count a subscriber in `subscribers[to]` while the block runs."""
        self.subscribers[to] += 1
        try:
            yield
        finally:
            self.subscribers[to] -= 1

    @contextmanager
    def share(self, key: Hashable, opened: Callable[[], AbstractContextManager[Shared]]) -> Iterator[Shared]:
        """Share one value among all users of `key`: `opened()` is entered for the first and exited after the last."""
        shared = self._shared.get(key)
        if shared is None:
            cleanup = ExitStack()
            shared = self._shared[key] = _Shared(cleanup.enter_context(opened()), 0, cleanup)
        shared.users += 1
        try:
            yield shared.value
        finally:
            shared.users -= 1
            if not shared.users:
                del self._shared[key]
                shared.cleanup.close()

    def notify(self, *topics: Topic) -> None:
        """Notify the listeners of `topics` in this process and, when servers share a database, in the others."""
        self.notify_here(*topics)
        if self._forward is not None:
            self._forward(topics)

    def notify_here(self, *topics: Topic) -> None:
        """Notify the listeners of `topics` in this process only, for a notification that came from another server."""
        for topic in topics:
            for listener in self._listeners.get(topic, ()):
                listener.notify()

    def join(self, forward: Callable[[tuple[Topic, ...]], None]) -> None:
        """Call `forward` with the topics of each `notify`, to send them to other servers; it must not block."""
        self._forward = forward

    def wake_all(self) -> None:
        """Notify every listener in this process: notifications may have been missed, or the server is stopping."""
        for listeners in self._listeners.values():
            for listener in listeners:
                listener.notify()
