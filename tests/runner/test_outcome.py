"""How a run ended, by the events of its play."""

from dataclasses import replace
from typing import Any

import pytest

from db.models import FailureReason, RunStatus
from db.phase import Phase
from runner.outcome import MAX_WARNINGS, judge, unknown_host_key
from runner.play.event import Event, Kind, PhaseResult
from tests import factories
from tests.runner.projects import PROJECT

WEB = factories.container(name="shop-web-1", image="web:1")


def ok(phase: Phase, **result: Any) -> Event:
    return Event(Kind.OK, phase, result=PhaseResult(**result))


def failure(phase: Phase, reason: FailureReason, detail: str) -> Event:
    return Event(Kind.FAILED, phase, message=detail, result=PhaseResult(reason=reason.value, detail=detail))


PHASES = [ok(Phase.PREPARE), ok(Phase.BUILD), ok(Phase.PULL), ok(Phase.UP), ok(Phase.VERIFY, containers=[WEB])]
END = Event(Kind.END, rc=0)


def test_all_phases_and_an_end_are_a_success() -> None:
    end = judge(PROJECT, [*PHASES, END])
    assert end is not None
    assert (end.status, end.reason, end.containers) == (RunStatus.SUCCESS, None, [WEB])


def test_containers_of_one_service_are_one_service() -> None:
    containers = [WEB, replace(WEB, name="shop-web-2"), factories.container(service="db")]
    end = judge(PROJECT, [*PHASES[:4], ok(Phase.VERIFY, containers=containers), END])
    assert end is not None
    assert end.message == "The project is up: 2 services."


def test_the_warnings_of_all_phases_are_the_runs_in_their_order_and_once() -> None:
    prepare, pull, up = (
        ok(Phase.PREPARE, warnings=["b", "a"]),
        ok(Phase.PULL, warnings=["a"]),
        ok(Phase.UP, warnings=[]),
    )
    phases = [prepare, PHASES[1], pull, up, PHASES[4]]
    end = judge(PROJECT, [*phases, END])
    assert end is not None
    assert end.warnings == ["b", "a"]
    assert end.message == "The project is up: 1 service, 2 warnings."


def test_a_failed_run_keeps_its_warnings_and_its_sentence() -> None:
    end = judge(
        PROJECT, [ok(Phase.PREPARE, warnings=["a"]), failure(Phase.PULL, FailureReason.TASK_FAILED, "No."), END]
    )
    assert end is not None
    assert (end.warnings, end.message) == (["a"], "Pull failed: No.")


def test_a_host_cannot_fill_the_database_with_warnings() -> None:
    end = judge(PROJECT, [*PHASES[:4], ok(Phase.VERIFY, warnings=[str(number) for number in range(1000)]), END])
    assert end is not None
    assert len(end.warnings) == MAX_WARNINGS


@pytest.mark.parametrize("word", ["MELTDOWN", "", None])
def test_a_reason_that_this_daos_does_not_know_is_a_task_that_failed(word: str | None) -> None:
    told = Event(Kind.FAILED, Phase.UP, message="No.", result=PhaseResult(reason=word, detail="No."))
    end = judge(PROJECT, [told, END])
    assert end is not None
    assert (end.reason, end.message) == (FailureReason.TASK_FAILED, "Up failed: No.")


@pytest.mark.parametrize(
    ("reason", "sentence"),
    [
        (FailureReason.IMAGE_BUILD_FAILED, "No. The previous containers keep running."),
        (FailureReason.IMAGE_PULL_FAILED, "No. The previous containers keep running."),
        (FailureReason.PORT_IN_USE, "No."),
        (FailureReason.DISK_FULL, "No."),
    ],
)
def test_the_commonest_failures_have_sentences_of_their_own(reason: FailureReason, sentence: str) -> None:
    end = judge(PROJECT, [failure(Phase.UP, reason, "No."), END])
    assert end is not None
    assert end.message == sentence


def test_all_phases_without_an_end_are_no_verdict() -> None:
    assert judge(PROJECT, PHASES) is None


@pytest.mark.parametrize("told", [0, 1, 2, 3, 4])
def test_a_play_that_stops_between_phases_is_no_verdict(told: int) -> None:
    assert judge(PROJECT, PHASES[:told]) is None


@pytest.mark.parametrize("reason", [reason for reason in FailureReason if reason is not FailureReason.CANCELED])
def test_a_failed_phase_keeps_its_reason_and_detail(reason: FailureReason) -> None:
    end = judge(PROJECT, [ok(Phase.PREPARE), failure(Phase.PULL, reason, "the host's own words"), END])
    assert end is not None
    assert (end.status, end.reason) == (RunStatus.FAILED, reason)
    assert "the host's own words" in end.message


def test_a_failure_that_is_not_the_plugins_is_ansibles() -> None:
    end = judge(PROJECT, [Event(Kind.FAILED, Phase.PULL, message="Unexpected failure"), END])
    assert end is not None
    assert end.reason is FailureReason.ANSIBLE_ERROR


def test_a_play_that_never_began_is_ansibles_error_with_its_words() -> None:
    words = Event(Kind.MESSAGE, message="ERROR! the playbook could not be found\nsecond line")
    end = judge(PROJECT, [words, replace(END, rc=4)])
    assert end is not None
    assert end.reason is FailureReason.ANSIBLE_ERROR
    assert end.message.endswith("ERROR! the playbook could not be found")


def test_a_play_whose_worker_was_killed_at_the_host_is_no_verdict() -> None:
    words = Event(Kind.MESSAGE, message="[ERROR]: A worker was found in a dead state")
    assert judge(PROJECT, [Event(Kind.PHASE, Phase.PREPARE), words, replace(END, rc=250)]) is None


def test_a_host_that_is_lost_later_is_no_verdict() -> None:
    lost = Event(Kind.UNREACHABLE, task="Deploy", message="Shared connection closed")
    assert judge(PROJECT, [Event(Kind.PHASE, Phase.PREPARE), lost, END]) is None
    assert judge(PROJECT, [lost, END]) is not None


def test_a_host_without_a_key_says_how_it_gets_one() -> None:
    end = unknown_host_key(PROJECT)
    assert end.reason is FailureReason.HOST_KEY_UNKNOWN
    assert "trustHostKey" in end.message


TASK = Event(Kind.TASK, task="Notify")
TASK_FAILED = Event(Kind.FAILED, task="Notify", message="non-zero return code")


@pytest.mark.parametrize("before", [0, 5])
def test_a_task_of_the_operator_that_fails_is_named_and_fails_the_run(before: int) -> None:
    end = judge(PROJECT, [*PHASES[:before], TASK, TASK_FAILED, replace(END, rc=2)])
    assert end is not None
    assert (end.status, end.reason) == (RunStatus.FAILED, FailureReason.TASK_FAILED)
    assert end.message == "Task 'Notify' failed: non-zero return code"
    assert end.containers == ([WEB] if before else [])


def test_a_task_of_the_operator_that_is_rescued_fails_nothing() -> None:
    end = judge(PROJECT, [TASK, TASK_FAILED, *PHASES, END])
    assert end is not None
    assert end.status is RunStatus.SUCCESS


def test_a_host_is_unreachable_where_a_task_has_only_begun() -> None:
    end = judge(PROJECT, [TASK, Event(Kind.UNREACHABLE, task="Notify", message="Connection refused"), END])
    assert end is not None
    assert end.reason is FailureReason.HOST_UNREACHABLE
