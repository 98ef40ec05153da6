"""Plays one claimed run, or asks its host how it ended.  See `runner.worker` for claiming and finishing.

    play      contact the host, play deploy.yml or down.yml, and judge by the events
    recover   for a run whose worker has died: play recover.yml, and judge by the host's answer

Either returns the run's end, or that it must be queued again.  What cuts a play off (`Interruption`) comes from the
worker through `Hold`, from the time limit, or from the play itself.  Then the play and all that it has started are
ended, here and on the host, before the host is asked how far it came; `runner.interruption` decides by the answer.
"""

# Longer than 300 lines: one attempt from the first contact to the end, with what it works with.

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from db.database import Database
from db.models import FailureReason, HostTransport, LogLevel, Run, RunAction, RunStatus
from db.patience import patiently
from db.phase import Phase, PhaseOutcome
from db.status import End
from runner import outcome, private, store, workspace
from runner.hold import Hold
from runner.interruption import UNASKED, UNJUDGED, Answer, CutOff, Ending, Interruption
from runner.play.event import Event, Kind
from runner.play.launcher import Starter
from runner.play.play import Process, environment
from runner.play.playbooks import locate
from runner.play.request import PlayRequest
from runner.record import Recorder
from runner.spec import run as specification
from runner.spec.phases import ANNOUNCEMENTS, progress
from runner.spec.run import Project, Timeouts
from runner.ssh import keys
from runner.ssh.control_masters import Masters

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class WorkerSettings:
    """How runs are played on this machine."""

    run_root: Path  # the directory of the runs' directories
    cookie: str  # the prefix of the cookie of each process that a run starts; unique among servers
    timeouts: Timeouts = field(default_factory=Timeouts)
    accept_new: bool = True  # whether the key of a host without a pinned key is accepted and pinned
    settle: float = 2.0  # seconds that a new container without a health check must stay up to count as healthy
    playbooks: Path | None = None  # an operator's directory, see `runner.play.playbooks`
    passed_on: Mapping[str, str] = field(default_factory=dict)  # environment of plays, see `environment`
    kept_open: tuple[int, ...] = ()  # descriptors, see `PlayRequest`


@dataclass(frozen=True)
class Tools:
    """The collaborators of an attempt."""

    db: Database
    settings: WorkerSettings
    masters: Masters
    start: Starter  # of plays


@dataclass(frozen=True)
class Requeue:
    """The run does not end: it is queued again, for any worker."""


class Attempt:
    """One worker's attempt at a run."""

    def __init__(self, hold: Hold, project: Project, recorder: Recorder, tools: Tools) -> None:
        self._hold = hold
        self._run = hold.run
        self._tenure = hold.tenure
        self._project = project
        self._recorder = recorder
        self._tools = tools
        self._failures: dict[str, Phase | None] = {}  # the messages of failures that plays have reported

    async def play(self) -> End | Requeue:
        """Play the run, and record what it reports."""
        project = self._project
        verb = "Deploying" if project.action is RunAction.UP else "Taking down"
        self._recorder.log(f"{verb} {project.package} as '{project.name}' on host '{project.target.name}'.")
        return await self._recorded(self._play)

    async def recover(self) -> End | Requeue:
        """Ask the host how a run that another worker was playing ended, and record the answer."""
        return await self._recorded(self._recover)

    async def _recorded(self, method: Callable[[], Awaitable[End | Requeue]]) -> End | Requeue:
        """Return the result of `method`, masked; its message and the failures that were reported are logged."""
        try:
            result = await method()
        except Exception as error:  # noqa: BLE001 - a run without an end would be shown as running forever
            result = unexpected(self._run, error)
        if isinstance(result, End):
            result = self._recorder.mask.hide(result)
        self._record_failures(result)
        if isinstance(result, End):
            level = LogLevel.INFO if result.status is RunStatus.SUCCESS else LogLevel.ERROR
            self._recorder.log(result.message, level=level)
        else:
            self._recorder.log("The run is queued again, for any worker.", level=LogLevel.WARNING)
        return result

    async def _play(self) -> End | Requeue:
        if (problem := await self._key_problem()) is not None:
            return problem
        master = await self._tools.masters.find(self._project.target)
        events, interruption = await self._play_over(master)
        if master is not None and interruption is None and _is_unreachable(events):
            self._tools.masters.drop(master)  # the master may have failed, and not the host
            events, interruption = await self._play_over(None)
        if self._tenure.is_over:  # the play may have noticed before the worker
            interruption = Interruption.LEASE_LOST
        end = outcome.judge(self._project, events)
        if end is not None and _counts(end, interruption):
            return end
        return await self._conclude(interruption or Interruption.DISCONNECTED, events)

    async def _recover(self) -> End | Requeue:
        is_canceled = self._hold.interruption is Interruption.CANCELED
        interruption = Interruption.CANCELED if is_canceled else Interruption.CRASHED
        answer = await self._ask(interruption)
        return self._decide(CutOff(self._project, interruption, answer, was_reached=self._run.progress > 0))

    async def _conclude(self, interruption: Interruption, events: list[Event]) -> End | Requeue:
        """Return the end of a run whose play was cut off."""
        if interruption is Interruption.LEASE_LOST:
            self._recorder.log("The worker has lost the database, and ended the play.", level=LogLevel.WARNING)
        answer = None if interruption in UNASKED else await self._ask(interruption)
        was_reached = outcome.has_reached_host(events)
        ssh_error, warnings = outcome.ssh_error(events), outcome.warnings(events)
        return self._decide(CutOff(self._project, interruption, answer, was_reached, ssh_error, warnings))

    def _decide(self, cut_off: CutOff) -> End | Requeue:
        if cut_off.has_begun_up:
            self._recorder.begin_up()
        if cut_off.ending is Ending.REQUEUE and self._tenure.may_requeue(self._run):
            return Requeue()
        return cut_off.end()

    async def _ask(self, interruption: Interruption) -> Answer | None:
        """Ask the host how the run ended, after ending what is left of it there; None if it does not answer."""
        if await self._key_problem() is not None:
            return None
        playbook = "halt.yml" if interruption in UNJUDGED else "recover.yml"
        timeouts = self._tools.settings.timeouts
        async with self._directory(None) as directory:
            process = await self._start(directory, playbook)
            return Answer.read(await self._listen(process, timeouts.connect + 2 * timeouts.recover))

    async def _key_problem(self) -> End | None:
        """Return why the host must not or cannot be contacted: its host key, or the key to log in with; else None."""
        target, settings = self._project.target, self._tools.settings
        if target.transport is HostTransport.LOCAL:
            return None
        if target.known_hosts is None and not settings.accept_new:
            return outcome.unknown_host_key(self._project)
        if target.ssh_key_path is None:
            return None
        try:
            await asyncio.to_thread(keys.check_private_key, target.ssh_key_path)
        except keys.KeyProblem as problem:
            return outcome.failed(problem.reason, str(problem))
        return None

    # ---- one play

    async def _play_over(self, master: Path | None) -> tuple[list[Event], Interruption | None]:
        """Play the run's playbook, over an open connection or a new one; see `_follow`."""
        async with self._directory(master) as directory:
            process = await self._start(directory, specification.playbook(self._project.action))
            return await self._follow(process, directory)

    def _directory(self, master: Path | None) -> AbstractAsyncContextManager[Path]:
        settings = self._tools.settings
        return workspace.prepared(settings.run_root, self._project, settings.timeouts, settings.settle, master)

    async def _start(self, directory: Path, playbook: str) -> Process:
        settings = self._tools.settings
        cookie = f"{settings.cookie}/{self._run.id}"
        variables = environment(directory, cookie, settings.passed_on)
        located = locate(playbook, settings.playbooks)
        request = PlayRequest(directory, located, cookie, variables, settings.kept_open, self._tenure.deadline)
        process = await self._tools.start(request)
        self._hold.attach(process)
        return process

    async def _stop(self, process: Process) -> None:
        """End the play with all that it has started."""
        await process.stop()
        self._hold.attach(None)

    async def _follow(self, process: Process, directory: Path) -> tuple[list[Event], Interruption | None]:
        """Record the play's events as they arrive; return them and what cut it off, None if it ended by itself."""
        events: list[Event] = []
        reading = asyncio.create_task(self._read(process, directory, events), name=f"events of run {self._run.id}")
        try:
            limit = self._tools.settings.timeouts.run
            either: set[asyncio.Future[Any]] = {reading, self._hold.interrupted}
            await asyncio.wait(either, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
            if not reading.done():
                self._hold.interrupt(Interruption.TIMEOUT)
            interruption = self._hold.interruption
        finally:
            await self._stop(process)
            await asyncio.wait({reading})
        reading.result()
        return events, interruption

    async def _read(self, process: Process, directory: Path, events: list[Event]) -> None:
        is_pinned = self._project.target.known_hosts is not None
        async for event in process.events():
            if event.kind not in {Kind.LINES, Kind.PROGRESS}:  # not needed for the judgment, and possibly many
                events.append(event)
            self._record(event)
            if event.kind in {Kind.PHASE, Kind.OK} and not is_pinned:  # the host has been reached
                is_pinned = await self._pin(directory)

    async def _listen(self, process: Process, limit: float) -> list[Event]:
        """Record and return the events of a play that cannot be interrupted, until its end or for `limit` seconds."""
        events: list[Event] = []
        try:
            async with asyncio.timeout(limit):
                async for event in process.events():
                    events.append(event)
                    self._record(event)
        except TimeoutError:
            self._recorder.log("The host does not answer.", level=LogLevel.WARNING)
        finally:
            await self._stop(process)
        return events

    async def _pin(self, directory: Path) -> bool:
        """Pin the host's key at the first contact; False if ssh has received none yet."""
        line = await asyncio.to_thread(workspace.pinned, directory)
        if line is None:
            return False
        target = self._project.target

        async def pin() -> bool:
            async with self._tools.db.write() as session:
                return await store.pin(session, target, line)

        if not await patiently(pin, f"the key of host {target.id} cannot be pinned"):  # the play goes on meanwhile
            self._hold.interrupt(Interruption.HOST_KEY_CHANGED)
        return True

    # ---- the log

    def _record(self, event: Event) -> None:
        """Record one event of a play."""
        recorder, phase = self._recorder, event.phase
        if event.kind is Kind.TASK:
            recorder.log(f"{event.task} begins.")
        if event.kind is Kind.PHASE and phase is not None:
            recorder.log(ANNOUNCEMENTS[phase], phase=phase)
            recorder.begin_phase(phase)
            if phase is Phase.UP:
                recorder.begin_up()
        for line in event.lines:
            recorder.log(line, level=LogLevel.WARNING if event.is_warning else LogLevel.INFO, phase=phase)
        fraction = 1.0 if event.kind is Kind.OK else event.fraction
        if phase is not None and fraction is not None and (done := progress(phase, fraction)) is not None:
            recorder.advance(done)
        if event.kind in {Kind.OK, Kind.FAILED} and phase is not None:
            recorder.end_phase(phase, PhaseOutcome.OK if event.kind is Kind.OK else PhaseOutcome.FAILED)
        if event.kind in {Kind.FAILED, Kind.UNREACHABLE}:
            self._failures.setdefault(event.message, phase)
        if event.kind is Kind.MESSAGE:
            recorder.log(event.message, level=LogLevel.WARNING)

    def _record_failures(self, result: End | Requeue) -> None:
        """Log the failures that were reported, except those that the run's own message contains."""
        message = result.message if isinstance(result, End) else ""
        is_failure = isinstance(result, End) and result.status is not RunStatus.SUCCESS
        level = LogLevel.ERROR if is_failure else LogLevel.WARNING
        for text, phase in self._failures.items():
            if self._recorder.mask(text).strip() not in message:
                self._recorder.log(text, level=level, phase=phase)


def _counts(end: End, interruption: Interruption | None) -> bool:
    """Whether the end that a play reported is the run's, in spite of an interruption.

    A failure that a play reports while it is cut off may result from that; a success counts.
    """
    if interruption is None:
        return True
    return end.status is RunStatus.SUCCESS and interruption is not Interruption.HOST_KEY_CHANGED


def _is_unreachable(events: list[Event]) -> bool:
    """Whether the host was not reached at all."""
    return outcome.ssh_error(events) is not None and not outcome.has_reached_host(events)


def unexpected(run: Run, error: BaseException) -> End:
    """Return the end of a run that daos itself failed to play; only the server's log has the details."""
    error_id = secrets.token_hex(8)
    logger.error("run %s failed in daos itself, error %s", run.id, error_id, exc_info=error)
    if isinstance(error, private.NotPrivate):
        return outcome.failed(FailureReason.INTERRUPTED, str(error))
    return outcome.failed(FailureReason.INTERRUPTED, f"daos itself failed; the server's log has error {error_id}.")
