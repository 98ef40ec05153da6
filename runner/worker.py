"""Claims runs, has them played (`runner.attempt`), and stores how they ended.

The engine decides which runs are played and when, see `runner.engine`.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from uuid import UUID

from db import status
from db.broadcast import Broadcast, Everything
from db.database import Database
from db.models import LogLevel, Run, RunStatus, now
from db.patience import patiently
from db.status import End
from runner import private, processes, record, store, workspace
from runner.attempt import Attempt, Requeue, Tools, WorkerSettings, unexpected
from runner.hold import Hold
from runner.interruption import Interruption
from runner.mask import Mask
from runner.play.launcher import Launcher
from runner.record import ClaimLost, Recorder
from runner.spec.run import Project
from runner.ssh.control_masters import Masters
from runner.tenure import Tenure

__all__ = ["Worker", "WorkerSettings"]

logger = logging.getLogger(__name__)

_Method = Callable[[Attempt], Awaitable[End | Requeue]]


class Worker:
    """Plays runs on this machine, any number at the same time."""

    def __init__(
        self,
        db: Database,
        broadcast: Broadcast,
        settings: WorkerSettings,
        launcher: Launcher | None = None,
        waited: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        """Create a worker; without a `launcher`, plays are started cold.

        `waited` is called with the seconds that each run was queued.
        """
        self._db = db
        self._broadcast = broadcast
        self._settings = settings
        self._masters = Masters(private.sockets(settings.run_root), settings.cookie)
        self._tools = Tools(db, settings, self._masters, (launcher or Launcher()).start)
        self._waited = waited
        self._holds: dict[UUID, Hold] = {}
        self._stopping = False

    @property
    def runs(self) -> set[UUID]:
        """The ids of the runs that this worker knows it holds."""
        return set(self._holds)

    async def clean(self) -> None:
        """End the processes and remove the files that the runs of a killed server left on this machine."""
        ended = await asyncio.to_thread(processes.end, self._settings.cookie, 1.0)
        ended += await asyncio.to_thread(processes.end_masters, self._settings.run_root, 1.0)
        removed = await asyncio.to_thread(workspace.sweep, self._settings.run_root)
        await self._masters.close()
        if ended or removed:
            logger.warning("removed %d processes and %d run directories that the last server left", ended, removed)

    async def leave(self) -> None:
        """End the connections to hosts and remove the directory of runs; no run may be playing."""
        await self._masters.close()
        await asyncio.to_thread(private.remove, self._settings.run_root)

    async def play(self, run_id: UUID, tenure: Tenure) -> None:
        """Claim the queued run and play it to its end; nothing happens if it is no longer queued."""
        async with self._db.write() as session:
            run = await tenure.claim(session, run_id)
            if run is None:
                return
            sequence = await record.begin(session, run, f"Run {run.number} begins.")
        if run.epoch == 1:  # a later claim would include the time of earlier ones
            self._waited((now() - run.queued_at).total_seconds())
        await self._complete(run, sequence, tenure, Attempt.play)

    async def recover(self, run_id: UUID, tenure: Tenure) -> None:
        """Take over a run that a killed server was playing, and find out how it ended."""
        async with self._db.write() as session:
            run = await tenure.take_over(session, run_id)
            if run is None:
                return
            message = "The server ended unexpectedly while it played this run."
            sequence = await record.begin(session, run, message, LogLevel.WARNING)
        await self.recover_taken(run, sequence, tenure)

    async def recover_taken(self, run: Run, sequence: int, tenure: Tenure) -> None:
        """Find out how a run that this worker has taken over ended; `sequence` is that of its last log entry."""
        await self._complete(run, sequence, tenure, Attempt.recover)

    def cancel(self, run_id: UUID) -> None:
        """Interrupt the run if this worker plays it."""
        if (hold := self._holds.get(run_id)) is not None:
            hold.interrupt(Interruption.CANCELED)

    def stop(self) -> None:
        """Interrupt all runs that are being played, and those that begin later."""
        self._stopping = True
        for hold in self._holds.values():
            hold.interrupt(Interruption.STOPPED)

    def abandon(self) -> None:
        """Interrupt all runs that are being played, because other workers may hold them."""
        for hold in self._holds.values():
            hold.interrupt(Interruption.LEASE_LOST)

    def extend(self, deadline: float) -> None:
        """Let plays continue until `deadline`, see `Tenure.deadline`."""
        for hold in self._holds.values():
            hold.extend(deadline)

    async def _complete(self, run: Run, sequence: int, tenure: Tenure, method: _Method) -> None:
        """Bring the claimed run to its end, or back to the queue, whatever happens."""
        with self._held(run, tenure) as hold:
            try:
                result = await self._attempt(hold, sequence, method)
                await (self._finish(run, result) if isinstance(result, End) else self._requeue(run, tenure))
            except* ClaimLost:
                logger.warning("run %s is no longer held by this worker, its outcome is not recorded", run.id)
            except* Exception as errors:  # noqa: BLE001 - a run without an end would be shown as running forever
                await self._finish(run, unexpected(run, errors))

    async def _attempt(self, hold: Hold, sequence: int, method: _Method) -> End | Requeue:
        """Return the result of the attempt, after everything that it reports has been recorded."""
        run = hold.run
        project = await self._read(hold)
        recorder = Recorder(self._db, self._broadcast, run, sequence, Mask.of(project.secrets))
        async with asyncio.TaskGroup() as group:
            group.create_task(recorder.write(), name=f"log of run {run.id}")
            result = await method(Attempt(hold, project, recorder, self._tools))
            recorder.close()
        return result

    async def _read(self, hold: Hold) -> Project:
        """Return what the run plays.  A cancel or a stop from before the hold existed interrupts the hold now."""
        run = hold.run

        async def read() -> tuple[Project, bool]:
            async with self._db.read() as session:
                return await store.project(session, run.id, self._db.keyring)

        project, is_canceled = await patiently(read, f"run {run.id} cannot be read")
        if is_canceled or self._stopping:
            hold.interrupt(Interruption.CANCELED if is_canceled else Interruption.STOPPED)
        return project

    async def _requeue(self, run: Run, tenure: Tenure) -> None:
        """Queue the run again.

        Raises: ClaimLost, also if a user has canceled it meanwhile: the worker that finds it unheld asks the host.
        """

        async def requeue() -> bool:
            async with self._db.write() as session:
                return await tenure.requeue(session, run)

        if not await patiently(requeue, f"run {run.id} cannot be queued again"):
            raise ClaimLost
        self._notify(run)
        logger.warning("run %s of deployment %s is queued again", run.id, run.deployment_id)

    async def _finish(self, run: Run, end: End) -> None:
        """Store how the run ended.  Raises: ClaimLost."""

        async def finish() -> bool:
            async with self._db.write() as session:
                return await status.finish(session, run.id, run.epoch, end)

        if not await patiently(finish, f"the end of run {run.id} cannot be written"):
            raise ClaimLost
        self._notify(run)
        log = logger.info if end.status is RunStatus.SUCCESS else logger.warning
        reason = end.status if end.reason is None else f"{end.status} {end.reason}"
        log("run %s of deployment %s ended: %s: %s", run.id, run.deployment_id, reason, end.message)

    @contextmanager
    def _held(self, run: Run, tenure: Tenure) -> Iterator[Hold]:
        """Yield a hold on the run, registered so that the run can be interrupted."""
        hold = self._holds[run.id] = Hold(run, tenure)
        self._notify(run)
        try:
            yield hold
        finally:
            del self._holds[run.id]

    def _notify(self, run: Run) -> None:
        self._broadcast.notify(run.id, run.deployment_id, Everything.DEPLOYMENTS)
