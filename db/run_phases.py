"""The phases of runs, as they are played.

Every function is called in a transaction that has changed the run's row: until its end, nobody else writes the run's
phases.
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
    outcome: PhaseOutcome | None = None  # None: it begins


async def record(session: AsyncSession, run_id: UUID, action: RunAction, changes: Sequence[PhaseChange]) -> None:
    """Write the changes in their order, each with an event of the run.

    A phase that is played again has its last times.  One that ends well and had not begun had nothing to do: SKIPPED.
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
    """End what is open of a run that has ended, and list the phases that it has not reached as SKIPPED.

    A run that was cut off can turn out to have succeeded: then so have the phases that were cut off.
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
    """Forget the phases of a run that is to be played again."""
    await session.execute(delete(RunPhase).where(RunPhase.run_id == run_id))


@dataclass(frozen=True)
class _Phases:
    """The phases of one run that are stored, and those that are added."""

    session: AsyncSession
    run_id: UUID
    action: RunAction
    rows: list[RunPhase]

    @classmethod
    async def read(cls, session: AsyncSession, run_id: UUID, action: RunAction) -> "_Phases":
        rows = await session.scalars(select(RunPhase).where(RunPhase.run_id == run_id))
        return cls(session, run_id, action, list(rows))

    def row(self, phase: Phase) -> RunPhase:
        """The row of the phase, a new one where there is none."""
        for row in self.rows:
            if row.phase is phase:
                return row
        row = RunPhase(run_id=self.run_id, position=self._position(phase), phase=phase)
        self.rows.append(row)
        self.session.add(row)
        return row

    def _position(self, phase: Phase) -> int:
        """Its place in the action; behind all others where it is not part of it."""
        usual = OF_ACTION[self.action]
        if phase in usual:
            return usual.index(phase)
        return max([len(usual) - 1, *(row.position for row in self.rows)]) + 1
