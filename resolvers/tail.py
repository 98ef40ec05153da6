"""The tail of an append-only source, a log or the changes of a status, read once for all subscribers of a server."""

import asyncio
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from db.broadcast import Broadcast, Listener, Topic
from db.patience import patiently

BATCH_SIZE = 100  # entries that a subscriber receives at once
KEPT = 500  # entries in memory; a subscriber that is further behind reads the database itself
POLL_INTERVAL = 10.0  # seconds; the maximum delay caused by a missed notification

Entry = TypeVar("Entry")


@dataclass(frozen=True)
class Piece(Generic[Entry]):
    """The next entries after a position; `is_last` if the source has ended and these are the last entries.

    `end` is the last position read, if entries were left out because they are unreadable or do not match, else None.
    """

    entries: Sequence[Entry]
    is_last: bool = False
    end: int | None = None
    made: dict[object, Any] = field(default_factory=dict, compare=False)  # a cache that subscribers share


class Source(Protocol[Entry]):
    """Reads entries from the database."""

    async def read(self, position: int) -> Piece[Entry] | None:
        """Return the entries after `position`, at most `BATCH_SIZE`, of one snapshot; None if the source is deleted."""
        ...

    async def read_end(self) -> Piece[Entry] | None:
        """Return the current last entries, at most `BATCH_SIZE`; None if the source does not exist."""
        ...

    def position(self, entry: Entry) -> int:
        """Return the position of the entry; positions increase."""
        ...


class Tail(Generic[Entry]):
    """The last entries of one source, with at most one read of the database at a time for all waiting subscribers.

    Entries in memory have no gap: each read starts after the last one.  A read starts after the notification that it is
    for, also if another one is in progress when it arrives: the listener records it, and the next read does not wait.
    """

    def __init__(self, source: Source[Entry], listener: Listener) -> None:
        self._source = source
        self._listener = listener
        self._entries: list[Entry] | None = None  # None before the first read
        self._positions: list[int] = []  # of the entries
        self._start = 0  # the position before the first entry
        self._last = 0  # the last position read
        self._pieces: dict[int, Piece[Entry]] = {}  # of the entries, by the position before; usually one for all
        self._has_ended = False
        self._is_deleted = False
        self._reading: asyncio.Task[None] | None = None

    async def after(self, position: int) -> Piece[Entry] | None:
        """Wait for entries after `position` and return them, at most `BATCH_SIZE`, or the piece at the source's end.

        None if the source does not exist or is deleted.
        """
        while not self._is_deleted:
            if self._entries is not None:
                if position < self._start:
                    start, piece = self._start, await self._read(position)
                    if piece is None or piece.entries or piece.is_last:
                        return piece
                    position = piece.end or start  # the entries in between are unreadable or deleted
                    continue
                if (piece := self._pieces.get(position)) is not None:
                    return piece
                first = bisect_right(self._positions, position)
                entries = self._entries[first : first + BATCH_SIZE]
                is_last = self._has_ended and first + len(entries) >= len(self._entries)
                if entries or is_last:
                    piece = self._pieces[position] = Piece(entries, is_last)
                    return piece
            await self._poll()
        return None

    def close(self) -> None:
        """Cancel a read that no subscriber waits for any more."""
        if self._reading is not None:
            self._reading.cancel()

    async def _poll(self) -> None:
        """Wait for the read in progress, or start one; a subscriber that leaves does not cancel it for the others."""
        if self._reading is None:
            self._reading = asyncio.create_task(self._read_for_all(), name=f"read of {self._source}")
            self._reading.add_done_callback(self._finish)
        reading = self._reading
        await asyncio.wait({reading})
        reading.result()

    def _finish(self, reading: asyncio.Task[None]) -> None:
        self._reading = None
        if reading.cancelled() or reading.exception():  # raised in the waiting subscribers
            self._listener.notify()  # the entries are still to be read

    async def _read_for_all(self) -> None:
        if self._entries is None:
            await self._begin()
            return
        await self._listener.wait(POLL_INTERVAL)
        piece = await self._read(self._last)
        if piece is None:
            self._is_deleted = True
            return
        self._has_ended = piece.is_last
        self._pieces = {}
        self._keep([*self._entries, *piece.entries], piece.end)
        if len(piece.entries) == BATCH_SIZE or piece.end is not None:
            self._listener.notify()  # there may be more

    async def _read(self, position: int) -> Piece[Entry] | None:
        return await patiently(partial(self._source.read, position), "the source of a subscription cannot be read")

    async def _begin(self) -> None:
        """Read the current end.  Raises: SQLAlchemyError, without retries, because no subscription has started yet."""
        end = await self._source.read_end()
        if end is None:
            self._is_deleted = True
            return
        self._has_ended = end.is_last
        before = self._source.position(end.entries[0]) - 1 if end.entries else end.end or 0
        self._start = self._last = before
        self._keep(list(end.entries), end.end)
        if end.is_last:  # nothing is kept in memory: no subscriber will wait for more entries
            self._start, self._entries, self._positions = self._last, [], []

    def _keep(self, entries: list[Entry], end: int | None) -> None:
        """Keep the last of `entries` in memory; `end`: see `Piece`."""
        positions = [self._source.position(entry) for entry in entries]
        self._last = max(self._last, end or 0, *positions[-1:])
        if len(entries) > KEPT:
            self._start = positions[-KEPT - 1]
        self._entries, self._positions = entries[-KEPT:], positions[-KEPT:]


def of(broadcast: Broadcast, topic: Topic, source: Source[Entry]) -> AbstractContextManager[Tail[Entry]]:
    """Share one tail of the source, notified under `topic`, among all subscribers to this type of source and topic."""
    return broadcast.share((topic, type(source)), lambda: own(broadcast, topic, source))


@contextmanager
def own(broadcast: Broadcast, topic: Topic, source: Source[Entry]) -> Iterator[Tail[Entry]]:
    """Open an unshared tail of the source, notified under `topic`, for a subscriber with a limit or a filter."""
    with broadcast.listen(topic) as listener:
        tail = Tail(source, listener)
        try:
            yield tail
        finally:
            tail.close()
