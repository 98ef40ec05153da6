"""Plays runs: claim, play, record, finish.  Which run and when is the engine's business."""

import asyncio
import logging
import secrets
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID

from sqlalchemy.exc import OperationalError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from db import status
from db.broadcast import Broadcast, Everything
from db.database import Database
from db.models import FailureReason, HostTransport, LogLevel, Run, RunStatus, now
from db.phase import Phase
from db.status import End
from runner import outcome, private, processes, record, store, workspace
from runner.lease import Lease
from runner.mask import Mask
from runner.outcome import Answer, Cause
from runner.play.event import Event, Kind
from runner.play.launcher import Keeper
from runner.play.play import Process, environment
from runner.record import ClaimLost, Recorder
from runner.spec import run
from runner.spec.phases import ANNOUNCEMENTS, progress
from runner.spec.run import Project, Timeouts
from runner.ssh import keys
from runner.ssh.control_masters import Masters

logger = logging.getLogger(__name__)

RETRY_INTERVAL = 1.0  # seconds, when the database does not take a run's end
MAX_CLAIMS = 5  # of one run; it may be what kills its workers


@dataclass(frozen=True)
class WorkerSettings:
    """How runs are played on this machine."""

    run_root: Path  # where runs have their directories
    cookie: str  # begins the cookie of each process that a run starts; no other server's begins so
    timeouts: Timeouts = field(default_factory=Timeouts)
    accept_new: bool = True  # whether a host's key is accepted and pinned where none is
    settle: float = 2.0  # seconds that a new container without a health check must stay up to count as well
    passed_on: Mapping[str, str] = field(default_factory=dict)  # environment of plays, see process.environment
    held: tuple[int, ...] = ()  # descriptors that plays keep open, see Process.start


@dataclass
class _Held:
    """A run that this worker holds."""

    run: Run
    project: Project
    recorder: Recorder
    interruption: asyncio.Future[Cause | End]
    failures: list[tuple[str, Phase | None]] = field(default_factory=list)  # what plays reported, with their phases


_Way = Callable[[_Held], Awaitable[End | None]]  # to the run's end, or to None: it is to be played again


class Again(Protocol):
    """Queues a run once more, in the transaction that hands it back."""

    async def __call__(self, session: AsyncSession, run: Run, /) -> None: ...


class Worker:
    """Plays runs on this machine, any number at the same time."""

    def __init__(
        self,
        db: Database,
        broadcast: Broadcast,
        settings: WorkerSettings,
        keeper: Keeper | None = None,
        waited: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        """Without a `keeper` every play goes the cold way; `waited` is told how long each run had to wait for it."""
        self._name = f"{socket.gethostname()}/{secrets.token_hex(4)}"
        self._db = db
        self._broadcast = broadcast
        self._settings = settings
        self._masters = Masters(private.sockets(settings.run_root), settings.cookie)
        self._keeper = keeper or Keeper(settings.run_root, settings.cookie, settings.passed_on, warm=False)
        self._waited = waited
        self._interruptions: dict[UUID, asyncio.Future[Cause | End]] = {}
        self._processes: set[Process] = set()
        self._stopping = False
        self.lease: Lease | None = None  # where several workers share the database
        self.again: Again | None = None  # lets a run be played again, where another worker could

    @property
    def held(self) -> set[UUID]:
        """The runs that this worker holds, as it knows itself."""
        return set(self._interruptions)

    async def clean(self) -> None:
        """End the processes and remove the files that a killed server's runs left on this machine."""
        ended = await asyncio.to_thread(processes.end, self._settings.cookie, 1.0)
        ended += await asyncio.to_thread(processes.end_masters, self._settings.run_root, 1.0)
        removed = await asyncio.to_thread(workspace.sweep, self._settings.run_root)
        await self._masters.close()
        if ended or removed:
            logger.warning("the last server left %d processes and %d run directories, removed", ended, removed)

    async def leave(self) -> None:
        """Remove the directory of runs, when none is played any more, and end the connections to hosts."""
        await self._masters.close()
        await asyncio.to_thread(private.remove, self._settings.run_root)

    async def play(self, run_id: UUID) -> None:
        """Claim the queued run and play it to its end; nothing happens when it is no longer queued."""
        name, seconds = (self.lease.worker, self.lease.seconds) if self.lease is not None else (self._name, None)
        async with self._db.write() as session:
            run = await status.claim(session, run_id, name, seconds)
            if run is None:
                return
            sequence = await record.begin(session, run, f"Run {run.number} begins.")
        if run.epoch == 1:  # another one's first wait is long over
            self._waited((now() - run.queued_at).total_seconds())
        await self._hold(run, sequence, self._play)

    async def recover(self, run_id: UUID) -> None:
        """Find out how a run ended that a dead server was playing, and write it down."""
        async with self._db.write() as session:
            run = await status.take_over(session, run_id, self._name)
            if run is None:
                return
            words = "The server ended unexpectedly while it played this run."
            sequence = await record.begin(session, run, words, LogLevel.WARNING)
        await self._hold(run, sequence, self._find_out)

    async def recover_taken(self, run: Run, sequence: int) -> None:
        """Find out how a run ended that was taken from a lost worker; `sequence` is that of its last log entry."""
        await self._hold(run, sequence, self._find_out)

    def cancel(self, run_id: UUID) -> None:
        """End the run if it is played here."""
        self._interrupt(run_id, Cause.CANCELED)

    def stop(self) -> None:
        """Interrupt everything that is being played, and what still begins."""
        self._stopping = True
        for run_id in self._interruptions:
            self._interrupt(run_id, Cause.STOPPED)

    def extend(self, deadline: float) -> None:
        """Let the plays go on until `deadline`, see `runner.lease`."""
        for process in self._processes:
            process.extend(deadline)

    def abandon(self) -> None:
        """End everything that is being played, and write nothing: others may hold it."""
        for run_id in self._interruptions:
            self._interrupt(run_id, Cause.ABANDONED)

    def _interrupt(self, run_id: UUID, cause: Cause | End) -> None:
        interruption = self._interruptions.get(run_id)
        if interruption is not None and not interruption.done():
            interruption.set_result(cause)

    async def _hold(self, run: Run, sequence: int, way: _Way) -> None:
        """Take the run by `way` to its end, or back to the queue, whatever happens on it."""
        interruption = self._interruptions[run.id] = asyncio.get_running_loop().create_future()
        self._notify(run)
        try:
            what, canceled = await self._read(run)
            # A cancel or a stop that came before there was anything to interrupt.
            if canceled or self._stopping:
                self._interrupt(run.id, Cause.CANCELED if canceled else Cause.STOPPED)
            recorder = Recorder(self._db, self._broadcast, run, sequence, Mask.of(what.secrets))
            end = await self._see_through(_Held(run, what, recorder, interruption), way)
            await (self._hand_back(run) if end is None else self._finish(run, end))
        except* ClaimLost:
            logger.warning("run %s is no longer held by this worker, its outcome is not recorded", run.id)
        except* Exception as errors:  # noqa: BLE001 - a run without an end would be shown as running for ever
            await self._finish(run, _unexpected(run, errors))
        finally:
            del self._interruptions[run.id]

    async def _read(self, run: Run) -> tuple[Project, bool]:
        """What the run is to play, and whether somebody wants it to end; a database that is away is waited for."""
        while True:
            try:
                async with self._db.read() as session:
                    return await store.project(session, run.id, self._db.keyring)
            except OperationalError:
                logger.exception("what run %s is to play cannot be read, trying again", run.id)
                await asyncio.sleep(RETRY_INTERVAL)

    async def _see_through(self, held: _Held, way: _Way) -> End | None:
        """What `way` leads to, with everything recorded that was said on it."""
        recorder = held.recorder
        async with asyncio.TaskGroup() as group:
            group.create_task(recorder.write(), name=f"log of run {held.run.id}")
            try:
                end = await way(held)
            except Exception as error:  # noqa: BLE001 - as above, and what was said so far is kept
                end = _unexpected(held.run, error)
            if end is not None:
                end = recorder.mask.hide(end)
            _tell_failures(held, end)
            if end is None:
                recorder.say("The run is queued again, for any worker.", level=LogLevel.WARNING)
            else:
                recorder.say(end.message, level=LogLevel.INFO if end.status is RunStatus.SUCCESS else LogLevel.ERROR)
            recorder.close()
        return end

    async def _hand_back(self, run: Run) -> None:
        """Queue the run again.

        Raises: ClaimLost, also where somebody wanted it to end meanwhile: who finds it held by nobody asks the host.
        """
        assert self.again is not None
        while True:
            try:
                async with self._db.write() as session:
                    queued = await status.hand_back(session, run.id, run.epoch)
                    if queued:
                        await self.again(session, run)
                break
            except Exception:  # a run that is in no queue would wait for ever
                logger.exception("run %s cannot be queued again, trying again", run.id)
                await asyncio.sleep(RETRY_INTERVAL)
        if not queued:
            raise ClaimLost
        self._notify(run)
        logger.warning("run %s of deployment %s is queued again", run.id, run.deployment_id)

    async def _finish(self, run: Run, end: End) -> None:
        """Write the run's end down, however long the database does not take it.  Raises: ClaimLost."""
        while True:
            try:
                async with self._db.write() as session:
                    finished = await status.finish(session, run.id, run.epoch, end)
                break
            except SQLAlchemyError:
                logger.exception("the end of run %s cannot be written, trying again", run.id)
                await asyncio.sleep(RETRY_INTERVAL)
        if not finished:
            raise ClaimLost
        self._notify(run)
        log = logger.info if end.status is RunStatus.SUCCESS else logger.warning
        log(
            "run %s of deployment %s ended: %s: %s",
            run.id,
            run.deployment_id,
            end.status if end.reason is None else f"{end.status} {end.reason}",
            end.message,
        )

    def _notify(self, run: Run) -> None:
        self._broadcast.notify(run.id, run.deployment_id, Everything.DEPLOYMENTS)

    async def _play(self, held: _Held) -> End | None:
        """The run's normal way."""
        what, recorder = held.project, held.recorder
        verb = "Deploying" if what.action.value == "UP" else "Taking down"
        recorder.say(f"{verb} {what.package} as '{what.name}' on host '{what.target.name}'.")
        problem = await self._key_problem(what)
        if problem is not None:
            return problem
        master = await self._masters.find(what.target)
        events, interruption = await self._play_on(master, held)
        if master is not None and interruption is None and _is_lost(events):
            self._masters.drop(master)  # it may have been the master's trouble, and not the host's
            events, interruption = await self._play_on(None, held)
        end, given = outcome.judge(what, events), outcome.warnings(events)
        if isinstance(interruption, End):
            return outcome.warned(interruption, given)
        if self.lease is not None and self.lease.is_over:
            interruption = Cause.ABANDONED  # the play may have noticed before the worker
        # A play that was cut off tells of the cutting; but one that had succeeded by then has succeeded.
        if end is not None and (interruption is None or end.status is RunStatus.SUCCESS):
            return end
        if interruption is Cause.ABANDONED:  # the host is not asked: another worker may be at work there
            held.recorder.say("The worker has lost the database, and ended the play.", level=LogLevel.WARNING)
            if self._may_go_on(held):
                return None
            return outcome.settle(what, interruption, None, touched=True, earlier=given)
        touched = any(event.kind is Kind.OK for event in events)
        end = await self._ask(held, interruption or Cause.LOST, touched=touched, earlier=given)
        end = end or _lost(what, events)
        return None if interruption is Cause.STOPPED and self._goes_on(held, end) else end

    async def _play_on(self, master: Path | None, held: _Held) -> tuple[list[Event], Cause | End | None]:
        """Play, on an open connection or on one of its own; see `_follow`."""
        what = held.project
        async with self._directory(what, master) as path:
            process = await self._start(path, run.playbook(what.action), what)
            return await self._follow(process, path, held)

    async def _find_out(self, held: _Held) -> End | None:
        """The way of a run whose worker has died."""
        interruption = held.interruption.result() if held.interruption.done() else None
        cause = Cause.CANCELED if interruption is Cause.CANCELED else Cause.CRASHED
        end = await self._ask(held, cause, touched=held.run.progress > 0)
        end = end or outcome.settle(held.project, cause, None, touched=held.run.progress > 0)
        return None if cause is Cause.CRASHED and self._goes_on(held, end) else end

    def _goes_on(self, held: _Held, end: End) -> bool:
        """Whether the run is to be played again instead of this end: it may, for what it does can be done twice."""
        return end.reason is FailureReason.INTERRUPTED and self._may_go_on(held)

    def _may_go_on(self, held: _Held) -> bool:
        return self.again is not None and held.run.epoch < MAX_CLAIMS

    async def _ask(self, held: _Held, cause: Cause, *, touched: bool, earlier: list[str] | None = None) -> End | None:
        """Ask the host how the run ended; None where a lost connection cannot be had back."""
        what = held.project
        answer: Answer | None = None
        if await self._key_problem(what) is None:
            async with self._directory(what) as path:
                # Nobody waits to see how a run would have ended that was canceled, or took too long.
                judged = cause not in {Cause.CANCELED, Cause.TIMEOUT}
                process = await self._start(path, "recover.yml" if judged else "halt.yml", what)
                limit = self._settings.timeouts.connect + 2 * self._settings.timeouts.recover
                answer = Answer.read(await self._listen(process, limit, held))
        if answer is not None and outcome.has_begun_up(what, answer):
            held.recorder.begin_up()
        if answer is None and cause is Cause.LOST:
            return None
        return outcome.settle(what, cause, answer, touched=touched, earlier=earlier)

    async def _key_problem(self, what: Project) -> End | None:
        """Why the host must not be talked to, or cannot be: its key, or the one to log in with."""
        if what.target.transport is HostTransport.LOCAL:
            return None
        if what.target.known_hosts is None and not self._settings.accept_new:
            return outcome.unknown_key(what.target)
        if what.target.ssh_key_path is None:
            return None
        try:
            await asyncio.to_thread(keys.check_private_key, what.target.ssh_key_path)
        except keys.KeyProblem as problem:
            return outcome.failed(problem.reason, str(problem))
        return None

    def _directory(self, what: Project, master: Path | None = None) -> AbstractAsyncContextManager[Path]:
        settings = self._settings
        return workspace.prepared(settings.run_root, what, settings.timeouts, settings.settle, master)

    async def _start(self, path: Path, playbook: str, what: Project) -> Process:
        cookie = f"{self._settings.cookie}/{what.run_id}"
        variables = environment(path, cookie, self._settings.passed_on)
        deadline = None if self.lease is None else self.lease.deadline
        process = await self._keeper.start(
            path, playbook, cookie, variables, list(self._settings.held), deadline=deadline
        )
        self._processes.add(process)
        return process

    async def _stop(self, process: Process) -> None:
        await process.stop()
        self._processes.discard(process)

    async def _follow(self, process: Process, path: Path, held: _Held) -> tuple[list[Event], Cause | End | None]:
        """The play's events, recorded as they come, and what cut it off, if something did."""
        events: list[Event] = []
        is_pinned = held.project.target.known_hosts is not None

        async def read() -> None:
            nonlocal is_pinned
            async for event in process.events():
                if event.kind not in {Kind.LINES, Kind.PROGRESS}:  # nothing is judged by them, and they can be many
                    events.append(event)
                _tell(event, held)
                if event.kind in {Kind.PHASE, Kind.TASK} and not is_pinned:  # the host has been reached
                    await self._pin(path, held)
                    is_pinned = True

        reading: asyncio.Future[None] = asyncio.create_task(read(), name=f"events of run {held.run.id}")
        try:
            either: list[asyncio.Future[Any]] = [reading, held.interruption]
            limit = self._settings.timeouts.run
            await asyncio.wait(either, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
            if held.interruption.done():
                interruption: Cause | End | None = held.interruption.result()
            else:
                interruption = None if reading.done() else Cause.TIMEOUT
        finally:
            await self._stop(process)
            await asyncio.wait({reading})
        reading.result()
        return events, interruption

    async def _listen(self, process: Process, limit: float, held: _Held) -> list[Event]:
        """The events of a play that nobody interrupts, as far as they come within `limit` seconds."""
        events: list[Event] = []
        try:
            async with asyncio.timeout(limit):
                async for event in process.events():
                    events.append(event)
                    _tell(event, held)
        except TimeoutError:
            held.recorder.say("The host does not answer.", level=LogLevel.WARNING)
        finally:
            await self._stop(process)
        return events

    async def _pin(self, path: Path, held: _Held) -> None:
        """Pin the host's key at the first contact."""
        line = await asyncio.to_thread(workspace.pinned, path)
        if line is None:
            return
        target = held.project.target
        while True:
            try:
                async with self._db.write() as session:
                    pinned = await store.pin(session, target, line)
                break
            except OperationalError:  # the play goes on meanwhile
                logger.exception("the key of host %s cannot be pinned, trying again", target.id)
                await asyncio.sleep(RETRY_INTERVAL)
        if not pinned:
            words = f"Host '{target.name}' shows another host key than the one that was pinned meanwhile."
            self._interrupt(held.run.id, outcome.failed(FailureReason.HOST_KEY_MISMATCH, words))


def _tell(event: Event, held: _Held) -> None:
    """Record one event of a play."""
    recorder = held.recorder
    if event.kind is Kind.TASK:
        recorder.say(f"{event.task} begins.")
    if event.kind is Kind.PHASE and event.phase is not None:
        recorder.say(ANNOUNCEMENTS[event.phase], phase=event.phase)
        if event.phase is Phase.UP:
            recorder.begin_up()
    for line in event.lines:
        recorder.say(line, level=LogLevel.WARNING if event.is_warning else LogLevel.INFO, phase=event.phase)
    fraction = 1.0 if event.kind is Kind.OK else event.fraction
    if event.phase is not None and fraction is not None and (done := progress(event.phase, fraction)) is not None:
        recorder.advance(done)
    if event.kind in {Kind.FAILED, Kind.UNREACHABLE}:
        held.failures.append((event.message, event.phase))
    if event.kind is Kind.WORDS:
        recorder.say(event.message, level=LogLevel.WARNING)


def _tell_failures(held: _Held, end: End | None) -> None:
    """Record what failed on the way to `end`, without what its own sentence repeats."""
    is_failure = end is not None and end.status is not RunStatus.SUCCESS
    level = LogLevel.ERROR if is_failure else LogLevel.WARNING
    for text, phase in dict.fromkeys(held.failures):
        if end is None or held.recorder.mask(text).strip() not in end.message:
            held.recorder.say(text, level=level, phase=phase)


def _unexpected(run: Run, error: BaseException) -> End:
    """The end of a run that daos itself failed to play; the details are for the server's log only."""
    error_id = secrets.token_hex(8)
    logger.error("run %s failed in daos itself, error %s", run.id, error_id, exc_info=error)
    if isinstance(error, private.NotPrivate):
        return outcome.failed(FailureReason.INTERRUPTED, str(error))
    return outcome.failed(FailureReason.INTERRUPTED, f"daos itself failed; the server's log tells of error {error_id}.")


def _is_lost(events: list[Event]) -> bool:
    """Whether the host was not reached at all."""
    kinds = {event.kind for event in events}
    return Kind.UNREACHABLE in kinds and not kinds & {Kind.PHASE, Kind.TASK}


def _lost(what: Project, events: list[Event]) -> End:
    """The end of a run whose connection broke and could not be had back."""
    for event in events:
        if event.kind is Kind.UNREACHABLE:
            return outcome.unreachable(what.target, event.message)
    return outcome.settle(what, Cause.LOST, None, touched=True, earlier=outcome.warnings(events))
