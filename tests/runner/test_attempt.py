"""One attempt at a run, with plays that are not played: what is asked of the host, and what the run ends with."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from db.broadcast import Broadcast
from db.database import Database
from db.models import Deployment, FailureReason, Host, LogEntry, LogLevel, Run, RunStatus
from db.phase import Phase, PhaseOutcome
from db.status import End
from runner import store
from runner.attempt import Attempt, Requeue, Tools
from runner.hold import Hold
from runner.interruption import Interruption
from runner.lease import Lease
from runner.mask import Mask
from runner.play.event import Event, Kind, Marker, MarkerState, PhaseResult
from runner.play.play import Process
from runner.play.request import PlayRequest
from runner.record import Recorder
from runner.spec.run import Project, Timeouts
from runner.ssh.control_masters import Masters
from runner.tenure import MAX_CLAIMS, Tenure
from runner.worker import WorkerSettings
from tests import factories
from tests.runner.engines import local_host

UP = (Phase.PREPARE, Phase.BUILD, Phase.PULL, Phase.UP, Phase.VERIFY)
END = Event(Kind.END, rc=0)
UNREACHABLE = Event(Kind.UNREACHABLE, task="Deploy", message="ssh: connect to host x port 22: Connection refused")
KEY = "* ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f\n"


def phase_events(*phases: Phase, **result: Any) -> list[Event]:
    """The events of phases that end well."""
    ok = PhaseResult(**result)
    return [event for phase in phases for event in (Event(Kind.PHASE, phase), Event(Kind.OK, phase, result=ok))]


@dataclass
class Play:
    """A play that reports `events` and then ends, or with `hangs`, when it is stopped."""

    events: list[Event]
    hangs: bool = False
    known_hosts: str | None = None  # what ssh writes down
    begun: asyncio.Event = field(default_factory=asyncio.Event)


class FakeProcess(Process):
    """A playing process that is not there."""

    def __init__(self, play: Play, request: PlayRequest) -> None:
        self.request = request
        self.deadlines: list[float] = []
        self._play = play
        self._stopped = asyncio.Event()

    async def events(self) -> AsyncIterator[Event]:  # type: ignore[override]
        if self._play.known_hosts is not None:
            (self.request.directory / "known_hosts").write_text(self._play.known_hosts)
        for event in self._play.events:
            yield event
        self._play.begun.set()
        if self._play.hangs:
            await self._stopped.wait()

    def extend(self, deadline: float) -> None:
        self.deadlines.append(deadline)

    async def stop(self) -> None:
        self._stopped.set()


class Plays:
    """Plays by their playbooks, and which were started."""

    def __init__(self, **plays: Play) -> None:
        self.plays: Mapping[str, Play] = plays
        self.started: list[str] = []
        self.processes: list[FakeProcess] = []

    async def start(self, request: PlayRequest, /) -> Process:
        name = request.playbook.removesuffix(".yml")
        self.started.append(name)
        process = FakeProcess(self.plays[name], request)
        self.processes.append(process)
        return process


class Trial:
    """An attempt at a run, and what came of it."""

    def __init__(self, db: Database, plays: Plays, settings: WorkerSettings, hold: Hold, project: Project) -> None:
        self.db = db
        self.project = project
        self.plays = plays
        self.settings = settings
        self.hold = hold

    async def __call__(self, way: Callable[[Attempt], Any] = Attempt.play) -> End | Requeue:
        recorder = Recorder(self.db, Broadcast(), self.hold.run, 0, Mask.of(self.project.secrets))
        masters = Masters(self.settings.run_root / "masters", self.settings.cookie)
        tools = Tools(self.db, self.settings, masters, self.plays.start)
        async with asyncio.TaskGroup() as group:
            group.create_task(recorder.write())
            result: End | Requeue = await way(Attempt(self.hold, self.project, recorder, tools))
            recorder.close()
        return result

    async def log(self) -> list[tuple[LogLevel, str]]:
        async with self.db.read() as session:
            entries = select(LogEntry).where(LogEntry.run_id == self.hold.run.id).order_by(LogEntry.sequence)
            return [(entry.level, entry.message) for entry in await session.scalars(entries)]


Ended = asyncio.Task[End | Requeue]


async def requeued(*_: object) -> None:
    """Queue a run again: nothing to do, for nobody plays it."""


LONELY, ONE_OF_MANY = Tenure("worker-1"), Tenure("worker-1", requeue=requeued)


@pytest.fixture
def settings(tmp_path: Path) -> WorkerSettings:
    return WorkerSettings(run_root=tmp_path / "runs", cookie="attempt")


@asynccontextmanager
async def interrupted(trial: Trial, play: Play, interruption: Interruption) -> AsyncIterator[Ended]:
    """The attempt, interrupted once its play has reported everything."""
    task = asyncio.create_task(trial())
    async with asyncio.timeout(10):
        await play.begun.wait()
        trial.hold.interrupt(interruption)
        await asyncio.wait({task})
    yield task


async def make(
    sqlite_db: Database, settings: WorkerSettings, tenure: Tenure = LONELY, *, on: Host | None = None, **plays: Play
) -> Trial:
    deployment = await factories.deployment(sqlite_db, on=on or await local_host(sqlite_db))
    run = await factories.run(sqlite_db, deployment, RunStatus.RUNNING)
    async with sqlite_db.read() as session:
        project, _ = await store.project(session, run.id, sqlite_db.keyring)
    return Trial(sqlite_db, Plays(**plays), settings, Hold(run, tenure), project)


async def test_a_play_that_reports_all_phases_is_a_success(sqlite_db: Database, settings: WorkerSettings) -> None:
    trial = await make(sqlite_db, settings, deploy=Play([*phase_events(*UP), END]))
    end = await trial()
    assert isinstance(end, End)
    assert end.status is RunStatus.SUCCESS
    assert trial.plays.started == ["deploy"]
    assert (await trial.log())[-1] == (LogLevel.INFO, end.message)


async def test_the_run_is_its_deployments_current_one_from_up_on(sqlite_db: Database, settings: WorkerSettings) -> None:
    failure = Event(Kind.FAILED, Phase.UP, message="No.", result=PhaseResult(reason="PORT_IN_USE", detail="No."))
    trial = await make(
        sqlite_db, settings, deploy=Play([*phase_events(*UP[:3]), Event(Kind.PHASE, Phase.UP), failure, END])
    )
    end = await trial()
    assert isinstance(end, End)
    assert end.reason is FailureReason.PORT_IN_USE
    async with sqlite_db.read() as session:
        run = await session.get_one(Run, trial.hold.run.id)
        assert (await session.get_one(Deployment, run.deployment_id)).current_run_id == run.id


async def test_after_a_cancel_during_a_pull_the_host_ends_its_work_and_the_run_is_canceled(
    sqlite_db: Database, settings: WorkerSettings
) -> None:
    pulling = Play([*phase_events(*UP[:2]), Event(Kind.PHASE, Phase.PULL)], hangs=True)
    halt = Play([])
    trial = await make(sqlite_db, settings, deploy=pulling, halt=halt)
    marker = Marker(str(trial.hold.run.id), Phase.PULL, MarkerState.RUNNING)
    halt.events += [*phase_events(Phase.HALT, marker=marker), END]
    async with interrupted(trial, pulling, Interruption.CANCELED) as task:
        end = task.result()
    assert isinstance(end, End)
    assert end.status is RunStatus.CANCELED
    assert end.message == "The run was canceled while images were pulled; the previous containers keep running."
    assert trial.plays.started == ["deploy", "halt"]


async def test_a_play_that_takes_too_long_is_a_time_out(sqlite_db: Database, settings: WorkerSettings) -> None:
    settings = replace(settings, timeouts=Timeouts(run=0))
    halt = Play([*phase_events(Phase.HALT), END])
    trial = await make(sqlite_db, settings, deploy=Play([], hangs=True), halt=halt)
    end = await trial()
    assert isinstance(end, End)
    assert end.reason is FailureReason.TIMEOUT
    assert trial.plays.started == ["deploy", "halt"]


@pytest.mark.parametrize(("tenure", "is_requeued"), [(LONELY, False), (ONE_OF_MANY, True)])
async def test_a_stopped_run_without_a_verdict_is_queued_again_where_others_can_play_it(
    sqlite_db: Database, settings: WorkerSettings, tenure: Tenure, is_requeued: bool
) -> None:
    playing = Play(phase_events(Phase.PREPARE), hangs=True)
    trial = await make(sqlite_db, settings, tenure, deploy=playing, recover=Play([END]))
    async with interrupted(trial, playing, Interruption.STOPPED) as task:
        result = task.result()
    assert isinstance(result, Requeue) is is_requeued
    assert trial.plays.started == ["deploy", "recover"]
    level, message = (await trial.log())[-1]
    assert (level, "queued again" in message) == (LogLevel.WARNING if is_requeued else LogLevel.ERROR, is_requeued)


async def test_a_run_that_was_claimed_too_often_is_not_queued_again(
    sqlite_db: Database, settings: WorkerSettings
) -> None:
    playing = Play([], hangs=True)
    trial = await make(sqlite_db, settings, ONE_OF_MANY, deploy=playing, recover=Play([END]))
    async with sqlite_db.write() as session:
        (await session.get_one(Run, trial.hold.run.id)).epoch = trial.hold.run.epoch = MAX_CLAIMS
    async with interrupted(trial, playing, Interruption.STOPPED) as task:
        end = task.result()
    assert isinstance(end, End)
    assert end.reason is FailureReason.INTERRUPTED


async def test_a_success_that_was_reported_before_the_interruption_is_one(
    sqlite_db: Database, settings: WorkerSettings
) -> None:
    play = Play([*phase_events(*UP), END], hangs=True)
    trial = await make(sqlite_db, settings, deploy=play)
    async with interrupted(trial, play, Interruption.CANCELED) as task:
        end = task.result()
    assert isinstance(end, End)
    assert end.status is RunStatus.SUCCESS


async def test_a_failure_that_was_reported_as_the_play_was_cut_off_is_not_believed(
    sqlite_db: Database, settings: WorkerSettings
) -> None:
    failure = Event(
        Kind.FAILED, Phase.UP, message="Terminated", result=PhaseResult(reason="TASK_FAILED", detail="Terminated")
    )
    play = Play([*phase_events(*UP[:3]), failure, END], hangs=True)
    halt = Play([*phase_events(Phase.HALT), END])
    trial = await make(sqlite_db, settings, deploy=play, halt=halt)
    async with interrupted(trial, play, Interruption.CANCELED) as task:
        end = task.result()
    assert isinstance(end, End)
    assert end.status is RunStatus.CANCELED


async def test_a_worker_whose_lease_is_over_asks_no_host(sqlite_db: Database, settings: WorkerSettings) -> None:
    lease = Lease(sqlite_db, "node", 1, 10.0)  # never begun: it is over
    trial = await make(
        sqlite_db, settings, Tenure("worker-1", lease, requeued), deploy=Play(phase_events(Phase.PREPARE))
    )
    assert isinstance(await trial(), Requeue)
    assert trial.plays.started == ["deploy"]


async def test_a_host_that_cannot_be_reached_is_asked_once_more_and_then_unreachable(
    sqlite_db: Database, settings: WorkerSettings
) -> None:
    lost = Play([*phase_events(Phase.PREPARE), replace(UNREACHABLE, message="Shared connection closed"), END])
    trial = await make(sqlite_db, settings, deploy=lost, recover=Play([UNREACHABLE, END]))
    end = await trial()
    assert isinstance(end, End)
    assert end.reason is FailureReason.HOST_UNREACHABLE
    assert "Shared connection closed" in end.message
    assert trial.plays.started == ["deploy", "recover"]


async def test_a_host_that_was_never_reached_is_not_asked(sqlite_db: Database, settings: WorkerSettings) -> None:
    trial = await make(sqlite_db, settings, deploy=Play([UNREACHABLE, END]))
    end = await trial()
    assert isinstance(end, End)
    assert end.reason is FailureReason.HOST_UNREACHABLE
    assert trial.plays.started == ["deploy"]


@pytest.mark.parametrize("pinned_meanwhile", [False, True])
async def test_the_hosts_key_is_pinned_at_the_first_contact(
    sqlite_db: Database, settings: WorkerSettings, pinned_meanwhile: bool
) -> None:
    host = await factories.host(sqlite_db, address="192.0.2.1")
    assert host.known_hosts is None
    play = Play([*phase_events(*UP), END], known_hosts=KEY)
    trial = await make(sqlite_db, settings, on=host, deploy=play)
    if pinned_meanwhile:
        async with sqlite_db.write() as session:
            (await session.get_one(Host, host.id)).known_hosts = "* ssh-ed25519 another\n"
    end = await trial()
    assert isinstance(end, End)
    if pinned_meanwhile:
        assert end.reason is FailureReason.HOST_KEY_MISMATCH
    else:
        assert end.status is RunStatus.SUCCESS
        async with sqlite_db.read() as session:
            assert (await session.get_one(Host, host.id)).known_hosts == KEY


async def test_a_task_of_the_operator_that_begins_before_the_first_contact_does_not_end_the_pinning(
    sqlite_db: Database, settings: WorkerSettings
) -> None:
    host = await factories.host(sqlite_db, address="192.0.2.1")
    play = Play([Event(Kind.TASK, task="Notify"), *phase_events(*UP), END], known_hosts=KEY)
    trial = await make(sqlite_db, settings, on=host, deploy=play)
    await trial()
    async with sqlite_db.read() as session:
        assert (await session.get_one(Host, host.id)).known_hosts == KEY


async def test_the_deadline_of_the_lease_reaches_the_play_and_moves(
    sqlite_db: Database, settings: WorkerSettings
) -> None:
    play = Play(phase_events(Phase.PREPARE), hangs=True)
    trial = await make(sqlite_db, settings, deploy=play, halt=Play([END]))
    task = asyncio.create_task(trial())
    await play.begun.wait()
    trial.hold.extend(5.0)
    trial.hold.interrupt(Interruption.CANCELED)
    await task
    trial.hold.extend(6.0)  # nothing is played any more
    assert [process.deadlines for process in trial.plays.processes] == [[5.0], []]


@pytest.mark.parametrize(
    ("reached", "end_of_recovery"),
    [
        ({"verdict": PhaseOutcome.OK}, RunStatus.SUCCESS),
        ({"verdict": PhaseOutcome.FAILED, "reason": "UNHEALTHY", "detail": "No."}, RunStatus.FAILED),
        ({"verdict": None}, RunStatus.FAILED),
    ],
)
async def test_after_a_crash_the_host_is_asked(
    sqlite_db: Database, settings: WorkerSettings, reached: dict[str, Any], end_of_recovery: RunStatus
) -> None:
    trial = await make(sqlite_db, settings, recover=Play([]))
    marker = Marker(str(trial.hold.run.id), Phase.UP, MarkerState.RUNNING)
    answer = {"marker": marker, **reached}
    trial.plays.plays["recover"].events[:] = [*phase_events(Phase.RECOVER, **answer), END]
    end = await trial(Attempt.recover)
    assert isinstance(end, End)
    assert end.status is end_of_recovery
    assert trial.plays.started == ["recover"]


async def test_a_play_that_cannot_be_started_ends_the_run_without_details(
    sqlite_db: Database, settings: WorkerSettings, caplog: pytest.LogCaptureFixture
) -> None:
    trial = await make(sqlite_db, settings)  # no play: it is looked up in vain
    end = await trial()
    assert isinstance(end, End)
    assert end.reason is FailureReason.INTERRUPTED
    assert "KeyError" not in end.message
    assert "KeyError" in caplog.text
