"""Events of runs: one for each change of a run's status or phase, numbered from 1 within the run, without gaps."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import func, insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from db.models import RunEvent


async def add(session: AsyncSession, run_id: UUID, times: Sequence[datetime]) -> None:
    """Add an event for each of `times`, in their order.

    The transaction must have changed the run's row before: until it ends, no other transaction can number events of
    the run.
    """
    last = await session.scalar(select(func.max(RunEvent.sequence)).where(RunEvent.run_id == run_id)) or 0
    rows = [{"run_id": run_id, "sequence": number, "at": at} for number, at in enumerate(times, start=last + 1)]
    if rows:
        await session.execute(insert(RunEvent), rows)
