"""Metrics of the queue and of runs, for monitoring."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import func, select

from db.database import Database
from db.models import ACTIVE, Run, RunStatus, now
from db.patience import UNAVAILABLE
from runner import store
from runner.engine.base import Engine

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Figures:
    """The queue at one point in time."""

    runs: Mapping[RunStatus, int]  # number of active runs by status, including zeros
    capacity: int  # runs that all workers together can play at the same time
    age: float  # seconds since the oldest queued run whose host has a free slot was accepted; 0 without one


async def of_queue(db: Database, engine: Engine) -> Figures | None:
    """Return the queue's current figures, at a cost that grows with its length; None if the database is unavailable."""
    try:
        async with db.read() as session:
            capacity = await engine.capacity(session)
            since = await store.waiting_since(session, capacity.per_host)
            counts = select(Run.status, func.count()).where(Run.status.in_(ACTIVE)).group_by(Run.status)
            runs = dict.fromkeys(ACTIVE, 0) | dict((await session.execute(counts)).all())
    except UNAVAILABLE as error:
        logger.warning("the queue cannot be counted: %s", error)
        return None
    age = 0.0 if since is None else max(0.0, (now() - since).total_seconds())
    return Figures(runs, capacity.runs, age)


async def of_ended(db: Database) -> Mapping[RunStatus, int] | None:
    """Return the number of stored runs by final status, from a scan of a whole index; None like `of_queue`."""
    ended = [status for status in RunStatus if status not in ACTIVE]
    counts = select(Run.status, func.count()).where(Run.status.in_(ended)).group_by(Run.status)
    try:
        async with db.read() as session:
            return dict.fromkeys(ended, 0) | dict((await session.execute(counts)).all())
    except UNAVAILABLE as error:
        logger.warning("the runs cannot be counted: %s", error)
        return None
