"""Writes a run's log, phases, and progress to the database, in batches, without ever blocking the play."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import cast

from sqlalchemy import Table, func, insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from db import run_phases, status
from db.broadcast import Broadcast
from db.database import Database
from db.models import LogEntry, LogLevel, Run, now
from db.patience import patiently
from db.phase import Phase, PhaseOutcome
from db.run_phases import PhaseChange
from runner.mask import Mask

BATCH_INTERVAL = 0.25  # seconds; short enough to look live, long enough to limit the number of transactions
BATCH_SIZE = 100  # entries
MAX_MESSAGE = 16 * 1024  # characters per entry
MAX_ENTRIES = 20_000  # per run; further entries of level INFO are counted and left out


class ClaimLost(Exception):
    """This worker no longer holds the run: another worker holds it or has ended it."""


@dataclass(frozen=True)
class _Entry:
    at: datetime
    level: LogLevel
    phase: Phase | None
    message: str


async def begin(session: AsyncSession, run: Run, message: str, level: LogLevel = LogLevel.INFO) -> int:
    """Add an entry in the transaction that claims the run, so that both are visible at once; return its sequence."""
    last = select(func.coalesce(func.max(LogEntry.sequence), 0)).where(LogEntry.run_id == run.id).scalar_subquery()
    entry = insert(LogEntry).values(run_id=run.id, sequence=last + 1, at=now(), level=level, message=message)
    return (await session.execute(entry.returning(LogEntry.sequence))).scalar_one()


class Recorder:
    """Records the log, the phases, and the progress of one claimed run, after the entry that `begin` has written."""

    def __init__(self, db: Database, broadcast: Broadcast, run: Run, sequence: int, mask: Mask) -> None:
        self._db = db
        self._broadcast = broadcast
        self._run_id = run.id
        self._epoch = run.epoch
        self._action = run.action
        self.mask = mask
        self._waiting: list[_Entry] = []
        self._phases: list[PhaseChange] = []
        self._progress = 0.0
        self._begins_up = False  # Up has begun, and this has not been written yet
        self._sequence = sequence
        self._count = 0
        self._more = asyncio.Event()
        self._closed = asyncio.Event()

    def log(self, message: str, *, level: LogLevel = LogLevel.INFO, phase: Phase | None = None) -> None:
        """Add an entry to the log, masked; returns immediately."""
        self._count += 1
        if self._count > MAX_ENTRIES and level is LogLevel.INFO:
            return
        self._waiting.append(_Entry(now(), level, phase, self.mask(message)[:MAX_MESSAGE]))
        self._more.set()

    def begin_phase(self, phase: Phase) -> None:
        """Record that the phase begins now; returns immediately."""
        self._phases.append(PhaseChange(phase, now()))
        self._more.set()

    def end_phase(self, phase: Phase, outcome: PhaseOutcome) -> None:
        """Record that the phase ends now; returns immediately.  One that succeeds without a beginning was skipped."""
        self._phases.append(PhaseChange(phase, now(), outcome))
        self._more.set()

    def advance(self, progress: float) -> None:
        """Set the progress, from 0 to 1; returns immediately."""
        self._progress = progress
        self._more.set()

    def begin_up(self) -> None:
        """Make the run its deployment's current one; returns immediately."""
        self._begins_up = True
        self._more.set()

    async def write(self) -> None:
        """Write entries as they arrive; returns after `close`, when everything is written.  Raises: ClaimLost."""
        while not self._closed.is_set() or self._more.is_set():
            await self._more.wait()
            await self._fill_batch()
            await self._flush()

    async def _fill_batch(self) -> None:
        """Wait for more entries, for `BATCH_INTERVAL` or until this is closed."""
        if len(self._waiting) < BATCH_SIZE:
            with suppress(TimeoutError):
                async with asyncio.timeout(BATCH_INTERVAL):
                    await self._closed.wait()

    def close(self) -> None:
        """Let `write` end after it has written the waiting entries."""
        if self._count > MAX_ENTRIES:
            left_out = f"{self._count - MAX_ENTRIES} more lines were left out."
            self._waiting.append(_Entry(now(), LogLevel.WARNING, None, left_out))
        self._closed.set()
        self._more.set()  # `write` must end also if there is no new entry

    async def _flush(self) -> None:
        """Write all waiting entries and changes."""
        self._more.clear()
        while True:
            batch, phases = list(self._waiting), list(self._phases)
            progress, begins_up = self._progress, self._begins_up
            write = partial(self._write, batch, phases, progress, begins_up=begins_up)
            await patiently(write, f"the log of run {self._run_id} cannot be written")
            self._begins_up = self._begins_up and not begins_up
            self._broadcast.notify(self._run_id)
            del self._waiting[: len(batch)], self._phases[: len(phases)]
            if not self._waiting and not self._phases:
                return

    async def _write(self, batch: list[_Entry], phases: list[PhaseChange], progress: float, *, begins_up: bool) -> None:
        async with self._db.write() as session:
            if not await status.advance(session, self._run_id, self._epoch, progress):
                raise ClaimLost
            if begins_up:
                await status.make_current(session, self._run_id, self._epoch)
            if phases:
                await run_phases.record(session, self._run_id, self._action, phases)
            rows = [
                {
                    "run_id": self._run_id,
                    "sequence": self._sequence + number,
                    "at": entry.at,
                    "level": entry.level,
                    "phase": entry.phase,
                    "message": entry.message,
                }
                for number, entry in enumerate(batch, start=1)
            ]
            if rows:
                # Use the table: with the class, rows with and without a phase would be separate statements.
                await session.execute(insert(cast("Table", LogEntry.__table__)), rows)
        self._sequence += len(batch)
