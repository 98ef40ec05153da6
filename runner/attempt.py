"""One claimed run: it is played, or its host is asked how it ended.  See `runner.worker` for claiming and finishing.

    play      contact the host, play deploy.yml or down.yml, and judge by what that reports
    recover   of a run whose worker has died: play recover.yml, and judge by what the host answers

Either returns the run's end, or that it is to be queued again.  What cuts a play off (`Interruption`) comes from the
worker through `Hold`, from the time limit, or from the play itself.  The play and all that it has started have ended
then, here and on the host, before the host is asked how far it came; `runner.outcome` decides by the answer.
"""

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

    run_root: Path  # where runs have their directories
    cookie: str  # begins the cookie of each process that a run starts; no other server's begins so
    timeouts: Timeouts = field(default_factory=Timeouts)
    accept_new: bool = True  # whether a host's key is accepted and pinned where none is
    settle: float = 2.0  # seconds that a new container without a health check must stay up to count as healthy
    playbooks: Path | None = None  # an operator's directory, see `runner.play.playbooks`
    passed_on: Mapping[str, str] = field(default_factory=dict)  # environment of plays, see `environment`
    kept_open: tuple[int, ...] = ()  # descriptors, see `PlayRequest`


@dataclass(frozen=True)
class Tools:
    """What an attempt works with."""

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
        self._failures: dict[str, Phase | None] = {}  # what plays reported of their failures

    async def play(self) -> End | Requeue:
        """Play the run, and record what it reports."""
        project = self._project
        verb = "Deploying" if project.action is RunAction.UP else "Taking down"
        self._recorder.say(f"{verb} {project.package} as '{project.name}' on host '{project.target.name}'.")
        return await self._recorded(self._play)

    async def recover(self) -> End | Requeue:
        """Ask the host how the run ended that another worker was playing, and record what it answers."""
        return await self._recorded(self._recover)

    async def _recorded(self, way: Callable[[], Awaitable[End | Requeue]]) -> End | Requeue:
        """The result of `way`, masked, with the failures that were reported on it and its message in the log."""
        try:
            result = await way()
        except Exception as error:  # noqa: BLE001 - a run without an end would be shown as running for ever
            result = unexpected(self._run, error)
        if isinstance(result, End):
            result = self._recorder.mask.hide(result)
        self._record_failures(result)
        if isinstance(result, End):
            level = LogLevel.INFO if result.status is RunStatus.SUCCESS else LogLevel.ERROR
            self._recorder.say(result.message, level=level)
        else:
            self._recorder.say("The run is queued again, for any worker.", level=LogLevel.WARNING)
        return result

    async def _play(self) -> End | Requeue:
        if (problem := await self._key_problem()) is not None:
            return problem
        master = await self._tools.masters.find(self._project.target)
        events, interruption = await self._play_over(master)
        if master is not None and interruption is None and _is_unreachable(events):
            self._tools.masters.drop(master)  # it may have been the master's trouble, and not the host's
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
        """The end of a run whose play was cut off."""
        if interruption is Interruption.LEASE_LOST:
            self._recorder.say("The worker has lost the database, and ended the play.", level=LogLevel.WARNING)
        answer = None if interruption in UNASKED else await self._ask(interruption)
        was_reached = any(event.kind in {Kind.PHASE, Kind.OK} for event in events)
        ssh_error, warnings = outcome.ssh_error(events), outcome.warnings(events)
        return self._decide(CutOff(self._project, interruption, answer, was_reached, ssh_error, warnings))

    def _decide(self, cut_off: CutOff) -> End | Requeue:
        if cut_off.has_begun_up:
            self._recorder.begin_up()
        if cut_off.ending is Ending.REQUEUE and self._tenure.may_requeue(self._run):
            return Requeue()
        return cut_off.end()

    async def _ask(self, interruption: Interruption) -> Answer | None:
        """Ask the host how the run ended, after ending what is left of it there; None where it does not answer."""
        if await self._key_problem() is not None:
            return None
        playbook = "halt.yml" if interruption in UNJUDGED else "recover.yml"
        timeouts = self._tools.settings.timeouts
        async with self._directory(None) as directory:
            process = await self._start(directory, playbook)
            return Answer.read(await self._listen(process, timeouts.connect + 2 * timeouts.recover))

    async def _key_problem(self) -> End | None:
        """Why the host must not be contacted, or cannot be: its own key, or the key to log in with."""
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
        """Play the run's playbook, over an open connection or one of its own; see `_follow`."""
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
        """The play's events, recorded as they come, and what cut it off; None where it ended by itself."""
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
            if event.kind not in {Kind.LINES, Kind.PROGRESS}:  # nothing is judged by them, and they can be many
                events.append(event)
            self._record(event)
            if event.kind in {Kind.PHASE, Kind.OK} and not is_pinned:  # the host has been reached
                is_pinned = await self._pin(directory)

    async def _listen(self, process: Process, limit: float) -> list[Event]:
        """The events of a play that nobody interrupts, as far as they come within `limit` seconds."""
        events: list[Event] = []
        try:
            async with asyncio.timeout(limit):
                async for event in process.events():
                    events.append(event)
                    self._record(event)
        except TimeoutError:
            self._recorder.say("The host does not answer.", level=LogLevel.WARNING)
        finally:
            await self._stop(process)
        return events

    async def _pin(self, directory: Path) -> bool:
        """Pin the host's key at the first contact; False where ssh has seen none yet."""
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
            recorder.say(f"{event.task} begins.")
        if event.kind is Kind.PHASE and phase is not None:
            recorder.say(ANNOUNCEMENTS[phase], phase=phase)
            recorder.begin_phase(phase)
            if phase is Phase.UP:
                recorder.begin_up()
        for line in event.lines:
            recorder.say(line, level=LogLevel.WARNING if event.is_warning else LogLevel.INFO, phase=phase)
        fraction = 1.0 if event.kind is Kind.OK else event.fraction
        if phase is not None and fraction is not None and (done := progress(phase, fraction)) is not None:
            recorder.advance(done)
        if event.kind in {Kind.OK, Kind.FAILED} and phase is not None:
            recorder.end_phase(phase, PhaseOutcome.OK if event.kind is Kind.OK else PhaseOutcome.FAILED)
        if event.kind in {Kind.FAILED, Kind.UNREACHABLE}:
            self._failures.setdefault(event.message, phase)
        if event.kind is Kind.MESSAGE:
            recorder.say(event.message, level=LogLevel.WARNING)

    def _record_failures(self, result: End | Requeue) -> None:
        """Record the failures that were reported, without what the run's own message repeats."""
        message = result.message if isinstance(result, End) else ""
        is_failure = isinstance(result, End) and result.status is not RunStatus.SUCCESS
        level = LogLevel.ERROR if is_failure else LogLevel.WARNING
        for text, phase in self._failures.items():
            if self._recorder.mask(text).strip() not in message:
                self._recorder.say(text, level=level, phase=phase)


def _counts(end: End, interruption: Interruption | None) -> bool:
    """Whether the end that a play reported is the run's, in spite of an interruption.

    What a play reports as it is cut off may be the cutting; but a play that had succeeded by then has succeeded.
    """
    if interruption is None:
        return True
    return end.status is RunStatus.SUCCESS and interruption is not Interruption.HOST_KEY_CHANGED


def _is_unreachable(events: list[Event]) -> bool:
    """Whether the host was not reached at all."""
    return outcome.ssh_error(events) is not None and not outcome.has_reached_host(events)


def unexpected(run: Run, error: BaseException) -> End:
    """The end of a run that daos itself failed to play; the details are in the server's log only."""
    error_id = secrets.token_hex(8)
    logger.error("run %s failed in daos itself, error %s", run.id, error_id, exc_info=error)
    if isinstance(error, private.NotPrivate):
        return outcome.failed(FailureReason.INTERRUPTED, str(error))
    return outcome.failed(FailureReason.INTERRUPTED, f"daos itself failed; the server's log has error {error_id}.")
