"""How a run ends whose play was cut off: the table, and what is said of it."""

from dataclasses import replace

import pytest
from uuid_utils.compat import uuid7

from db.models import FailureReason, RunStatus
from db.phase import Phase, PhaseOutcome
from runner.interruption import ENDINGS, Answer, CutOff, Ending, Interruption, Verdict
from runner.play.event import Event, Kind, Marker, MarkerState, PhaseResult
from tests import factories
from tests.runner.projects import PROJECT

OLDER = str(PROJECT.run_id)[:-12] + "000000000000"  # ids grow with time
WEB = factories.container(name="shop-web-1", image="web:1")
MARKER = Marker(str(PROJECT.run_id), Phase.UP, MarkerState.RUNNING)
DONE = replace(MARKER, phase=Phase.VERIFY, state=MarkerState.DONE)
NOTHING_FOUND = Answer(busy=False, marker=None, verdict=None, reason=None, detail=None, containers=[])
END = Event(Kind.END, rc=0)


# What the host answers where it knows that.
ANSWERS = {
    Verdict.UNREACHED: None,
    Verdict.UNAVAILABLE: None,
    Verdict.BUSY: replace(NOTHING_FOUND, busy=True),
    Verdict.SUCCEEDED: replace(NOTHING_FOUND, marker=DONE),
    Verdict.HEALTHY: replace(NOTHING_FOUND, marker=MARKER, verdict=PhaseOutcome.OK),
    Verdict.FAILED: replace(
        NOTHING_FOUND, marker=MARKER, verdict=PhaseOutcome.FAILED, reason="PORT_IN_USE", detail="No."
    ),
    Verdict.UNDECIDED: replace(NOTHING_FOUND, marker=MARKER),
}

# One row for each interruption; the columns are those of `Verdict`.
TABLE = f"""
                  {" ".join(Verdict)}
    canceled      canceled    interrupted interrupted success canceled canceled canceled
    timeout       timeout     timeout     interrupted success timeout timeout  timeout
    stopped       requeue     requeue     requeue     success success failed   requeue
    crashed       requeue     requeue     requeue     success success failed   requeue
    disconnected  unreachable unreachable interrupted success success failed   interrupted
    lease_lost    requeue     requeue     requeue     requeue requeue requeue  requeue
"""


def rows() -> list[tuple[Interruption, Verdict, Ending]]:
    header, *lines = TABLE.strip().splitlines()
    verdicts = [Verdict(word) for word in header.split()]
    return [
        (Interruption[line.split()[0].upper()], verdict, Ending(word))
        for line in lines
        for verdict, word in zip(verdicts, line.split()[1:], strict=True)
    ]


@pytest.mark.parametrize(("interruption", "verdict", "ending"), rows())
def test_an_interruption_and_a_verdict_make_the_end(
    interruption: Interruption, verdict: Verdict, ending: Ending
) -> None:
    cut_off = CutOff(PROJECT, interruption, ANSWERS[verdict], was_reached=verdict is not Verdict.UNREACHED)
    assert (cut_off.verdict, cut_off.ending) == (verdict, ending)


def test_the_table_has_an_end_for_each_case() -> None:
    assert {(interruption, verdict) for interruption, endings in ENDINGS.items() for verdict in endings} == {
        (interruption, verdict) for interruption in Interruption for verdict in Verdict
    }


STATUSES = {Ending.SUCCESS: RunStatus.SUCCESS, Ending.CANCELED: RunStatus.CANCELED}
REASONS = {
    Ending.SUCCESS: None,
    Ending.FAILED: FailureReason.PORT_IN_USE,
    Ending.CANCELED: FailureReason.CANCELED,
    Ending.TIMEOUT: FailureReason.TIMEOUT,
    Ending.INTERRUPTED: FailureReason.INTERRUPTED,
    Ending.UNREACHABLE: FailureReason.HOST_UNREACHABLE,
    Ending.REQUEUE: FailureReason.INTERRUPTED,  # where no other worker could play it
}


@pytest.mark.parametrize(("interruption", "verdict", "ending"), rows())
def test_each_end_has_its_status_its_reason_and_a_sentence(
    interruption: Interruption, verdict: Verdict, ending: Ending
) -> None:
    reached = verdict is not Verdict.UNREACHED
    end = CutOff(PROJECT, interruption, ANSWERS[verdict], reached, ssh_error="Connection refused").end()
    assert (end.status, end.reason) == (STATUSES.get(ending, RunStatus.FAILED), REASONS[ending])
    assert end.message.endswith(".")


@pytest.mark.parametrize("verdict", Verdict)
def test_a_host_that_shows_another_key_than_the_pinned_one_is_a_mismatch(verdict: Verdict) -> None:
    end = CutOff(PROJECT, Interruption.HOST_KEY_CHANGED, ANSWERS[verdict]).end()
    assert (end.status, end.reason) == (RunStatus.FAILED, FailureReason.HOST_KEY_MISMATCH)
    assert "web-1" in end.message


def test_a_recorded_failure_whose_reason_is_unknown_is_a_task_that_failed() -> None:
    answer = replace(NOTHING_FOUND, marker=MARKER, verdict=PhaseOutcome.FAILED, reason="X")
    assert CutOff(PROJECT, Interruption.CRASHED, answer).end().reason is FailureReason.TASK_FAILED


def test_a_run_whose_host_was_asked_has_the_warnings_of_its_play_too() -> None:
    answer = replace(NOTHING_FOUND, marker=MARKER, verdict=PhaseOutcome.OK, containers=[WEB], warnings=["a", "b"])
    end = CutOff(PROJECT, Interruption.DISCONNECTED, answer, warnings=["b", "c"]).end()
    assert end.warnings == ["b", "c", "a"]
    assert end.message.endswith(", 3 warnings.")


@pytest.mark.parametrize(
    ("phase", "where"),
    [
        (Phase.PREPARE, "while its files were prepared"),
        (Phase.BUILD, "while images were built"),
        (Phase.PULL, "while images were pulled"),
        (Phase.UP, "while the containers were started"),
        (Phase.VERIFY, "while daos waited for the containers to be healthy"),
        (None, "at an unknown point"),
    ],
)
def test_a_canceled_run_says_how_far_it_had_come(phase: Phase | None, where: str) -> None:
    answer = replace(NOTHING_FOUND, marker=replace(MARKER, phase=phase))
    end = CutOff(PROJECT, Interruption.CANCELED, answer, was_reached=True).end()
    assert (end.status, end.reason) == (RunStatus.CANCELED, FailureReason.CANCELED)
    assert where in end.message


def test_a_run_that_had_succeeded_before_its_cancel_arrived_has_succeeded() -> None:
    answer = replace(NOTHING_FOUND, marker=DONE, containers=[WEB])
    assert CutOff(PROJECT, Interruption.CANCELED, answer, was_reached=True).end().status is RunStatus.SUCCESS


@pytest.mark.parametrize("interruption", [each for each in Interruption if each is not Interruption.HOST_KEY_CHANGED])
def test_work_that_goes_on_is_never_called_canceled(interruption: Interruption) -> None:
    end = CutOff(PROJECT, interruption, replace(NOTHING_FOUND, busy=True), was_reached=True).end()
    assert (end.status, end.reason) == (RunStatus.FAILED, FailureReason.INTERRUPTED)


@pytest.mark.parametrize(
    "interruption", [Interruption.CANCELED, Interruption.CRASHED, Interruption.STOPPED, Interruption.DISCONNECTED]
)
def test_a_host_that_was_reached_and_cannot_be_asked_leaves_an_interrupted_run(interruption: Interruption) -> None:
    end = CutOff(PROJECT, interruption, None, was_reached=True).end()
    assert (end.status, end.reason) == (RunStatus.FAILED, FailureReason.INTERRUPTED)
    assert "could not be asked" in end.message


def test_a_cancel_before_the_host_answered_is_a_cancel() -> None:
    assert CutOff(PROJECT, Interruption.CANCELED, None, was_reached=False).end().status is RunStatus.CANCELED


def test_a_time_out_stays_one_whatever_the_host_answers() -> None:
    for answer in (None, NOTHING_FOUND, replace(NOTHING_FOUND, marker=MARKER)):
        assert CutOff(PROJECT, Interruption.TIMEOUT, answer, was_reached=True).end().reason is FailureReason.TIMEOUT


def test_after_a_crash_the_hosts_verdict_counts() -> None:
    well = replace(NOTHING_FOUND, marker=MARKER, verdict=PhaseOutcome.OK, containers=[WEB])
    assert CutOff(PROJECT, Interruption.CRASHED, well, was_reached=True).end().status is RunStatus.SUCCESS
    ill = replace(well, verdict=PhaseOutcome.FAILED, reason="UNHEALTHY", detail="web exited (3)")
    end = CutOff(PROJECT, Interruption.CRASHED, ill, was_reached=True).end()
    assert (end.status, end.reason) == (RunStatus.FAILED, FailureReason.UNHEALTHY)
    assert "web exited (3)" in end.message


def test_after_a_crash_without_a_verdict_the_run_is_interrupted() -> None:
    end = CutOff(PROJECT, Interruption.CRASHED, replace(NOTHING_FOUND, marker=MARKER), was_reached=True).end()
    assert (end.status, end.reason) == (RunStatus.FAILED, FailureReason.INTERRUPTED)
    assert "while the containers were started" in end.message


@pytest.mark.parametrize(
    ("phase", "begun"),
    [(phase, phase in {Phase.UP, Phase.VERIFY}) for phase in Phase],
)
def test_the_marker_on_the_host_says_whether_up_had_begun(phase: Phase, begun: bool) -> None:
    assert (
        CutOff(PROJECT, Interruption.CRASHED, replace(NOTHING_FOUND, marker=replace(MARKER, phase=phase))).has_begun_up
        is begun
    )
    of_another = replace(MARKER, run=OLDER, phase=phase)
    assert not CutOff(PROJECT, Interruption.CRASHED, replace(NOTHING_FOUND, marker=of_another)).has_begun_up
    assert not CutOff(PROJECT, Interruption.CRASHED, NOTHING_FOUND).has_begun_up


def test_a_later_runs_marker_tells_nothing_about_this_one() -> None:
    later = replace(NOTHING_FOUND, marker=replace(DONE, run=str(uuid7())))
    end = CutOff(PROJECT, Interruption.CRASHED, later, was_reached=False).end()
    assert end.reason is FailureReason.INTERRUPTED
    assert "another run has been on the host since" in end.message


def test_without_a_marker_nothing_was_changed() -> None:
    end = CutOff(PROJECT, Interruption.CRASHED, NOTHING_FOUND, was_reached=False).end()
    assert end.reason is FailureReason.INTERRUPTED
    assert "before it had changed anything" in end.message


def test_the_answer_is_none_where_the_host_gave_none() -> None:
    assert Answer.read([Event(Kind.UNREACHABLE, task="Recover", message="Connection refused"), END]) is None
    assert (
        Answer.read([Event(Kind.FAILED, Phase.RECOVER, result=PhaseResult(reason="DOCKER_UNAVAILABLE")), END]) is None
    )


def test_an_older_runs_marker_tells_that_this_one_has_changed_nothing() -> None:
    older = replace(NOTHING_FOUND, marker=replace(DONE, run=OLDER))
    end = CutOff(PROJECT, Interruption.CANCELED, older, was_reached=False).end()
    assert end.message == "The run was canceled before it had changed anything on the host."
