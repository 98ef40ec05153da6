"""The phases of runs, recorded as they are played.

Every function must be called in a transaction that has changed the run's row: until it ends, no other transaction can
write the run's phases.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from db import run_events
from db.models import RunAction, RunPhase
from db.phase import OF_DOWN, OF_UP, Phase, PhaseOutcome

OF_ACTION: Mapping[RunAction, tuple[Phase, ...]] = {
    RunAction.UP: OF_UP,
    RunAction.DOWN: OF_DOWN,
}


@dataclass(frozen=True)
class PhaseChange:
    """A phase begins, or ends with an outcome."""

    phase: Phase
    at: datetime
    outcome: PhaseOutcome | None = None  # None: the phase begins


async def record(session: AsyncSession, run_id: UUID, action: RunAction, changes: Sequence[PhaseChange]) -> None:
    """Write the changes in their order, and add an event of the run for each.

    A phase that is played again keeps the times of the last time.  A phase that ends without failure and had not begun
    had nothing to do: it becomes SKIPPED.
    """
    phases = await _Phases.read(session, run_id, action)
    for change in changes:
        row = phases.row(change.phase)
        if change.outcome is None:
            row.started_at, row.finished_at, row.outcome = change.at, None, None
        elif row.started_at is None and change.outcome is not PhaseOutcome.FAILED:
            row.outcome = PhaseOutcome.SKIPPED
        else:
            row.started_at, row.finished_at, row.outcome = row.started_at or change.at, change.at, change.outcome
    await session.flush()
    await run_events.add(session, run_id, [change.at for change in changes])


async def close(session: AsyncSession, run_id: UUID, action: RunAction, at: datetime, *, succeeded: bool) -> None:
    """End the open phases of a run that has ended, and add the phases that it did not reach as SKIPPED.

    An interrupted run can turn out to have succeeded: then its interrupted phases become OK.
    """
    phases = await _Phases.read(session, run_id, action)
    for row in phases.rows:
        if row.outcome is None:
            row.finished_at = at
            row.outcome = PhaseOutcome.OK if succeeded else PhaseOutcome.FAILED
        elif succeeded and row.outcome is PhaseOutcome.FAILED:
            row.outcome = PhaseOutcome.OK
    for phase in OF_ACTION[action]:
        row = phases.row(phase)
        row.outcome = row.outcome or PhaseOutcome.SKIPPED
    await session.flush()


async def clear(session: AsyncSession, run_id: UUID) -> None:
    """Delete the phases of a run that is to be played again."""
    await session.execute(delete(RunPhase).where(RunPhase.run_id == run_id))


@dataclass(frozen=True)
class _Phases:
    """The stored phases of one run, and those that are added."""

    session: AsyncSession
    run_id: UUID
    action: RunAction
    rows: list[RunPhase]

    @classmethod
    async def read(cls, session: AsyncSession, run_id: UUID, action: RunAction) -> "_Phases":
        rows = await session.scalars(select(RunPhase).where(RunPhase.run_id == run_id))
        return cls(session, run_id, action, list(rows))

    def row(self, phase: Phase) -> RunPhase:
        """Return the row of the phase; a new one if there is none."""
        for row in self.rows:
            if row.phase is phase:
                return row
        row = RunPhase(run_id=self.run_id, position=self._position(phase), phase=phase)
        self.rows.append(row)
        self.session.add(row)
        return row

    def _position(self, phase: Phase) -> int:
        """Return the phase's position in the action; after all others if it is not part of the action."""
        usual = OF_ACTION[self.action]
        if phase in usual:
            return usual.index(phase)
        return max([len(usual) - 1, *(row.position for row in self.rows)]) + 1
