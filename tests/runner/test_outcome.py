"""What a run's end is made of: Ansible's events, and what the host answers when there is no verdict among them."""

from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest
from uuid_utils.compat import uuid7

from db.models import FailureReason, HostTransport, RunAction, RunStatus
from db.phase import Phase, PhaseOutcome
from runner.outcome import MAX_WARNINGS, Answer, Cause, has_begun_up, judge, settle, unknown_key, unreachable
from runner.play.event import Event, Kind, Marker, MarkerState, PhaseResult
from runner.spec.phases import OF_ACTION
from runner.spec.run import Project
from runner.ssh import keys
from runner.ssh.target import Target
from tests import factories

OLDER = uuid7()  # than the run, whose id is made later
TARGET = Target(
    id=uuid4(),
    name="web-1",
    transport=HostTransport.SSH,
    address="192.0.2.1",
    port=22,
    user="deploy",
    ssh_key_path=None,
    known_hosts=None,
)
PROJECT = Project(
    run_id=uuid7(),
    number=1,
    action=RunAction.UP,
    deployment_id=uuid4(),
    installation=uuid4(),
    name="shop",
    package="shop 1",
    target=TARGET,
    compose_file="services: {}",
    files={},
    variables={},
)
WEB = factories.container(name="shop-web-1", image="web:1")
MARKER = Marker(str(PROJECT.run_id), Phase.UP, MarkerState.RUNNING)
NOTHING_FOUND = Answer(busy=False, marker=None, verdict=None, reason=None, detail=None, containers=[])


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
    assert end.message == "2 services of the project are up and well."


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
    assert end.message == "The one service of the project is up and well, with 2 warnings."


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


def test_a_run_whose_host_was_asked_has_the_warnings_of_its_play_too() -> None:
    answer = replace(NOTHING_FOUND, marker=MARKER, verdict=PhaseOutcome.OK, containers=[WEB], warnings=["a", "b"])
    end = settle(PROJECT, Cause.LOST, answer, touched=True, earlier=["b", "c"])
    assert end.warnings == ["b", "c", "a"]
    assert end.message.endswith(", with 3 warnings.")


@pytest.mark.parametrize("word", ["MELTDOWN", "", None])
def test_a_reason_that_this_daos_does_not_know_is_a_task_that_failed(word: str | None) -> None:
    told = Event(Kind.FAILED, Phase.UP, message="No.", result=PhaseResult(reason=word, detail="No."))
    end = judge(PROJECT, [told, END])
    assert end is not None
    assert (end.reason, end.message) == (FailureReason.TASK_FAILED, "Up failed: No.")
    after = settle(
        PROJECT,
        Cause.CRASHED,
        replace(NOTHING_FOUND, marker=MARKER, verdict=PhaseOutcome.FAILED, reason="X"),
        touched=True,
    )
    assert after.reason is FailureReason.TASK_FAILED


@pytest.mark.parametrize(
    ("reason", "sentence"),
    [
        (FailureReason.IMAGE_BUILD_FAILED, "No. What ran before still runs."),
        (FailureReason.IMAGE_PULL_FAILED, "No. What ran before still runs."),
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
    words = Event(Kind.WORDS, message="ERROR! the playbook could not be found\nsecond line")
    end = judge(PROJECT, [words, replace(END, rc=4)])
    assert end is not None
    assert end.reason is FailureReason.ANSIBLE_ERROR
    assert end.message.endswith("ERROR! the playbook could not be found")


def test_a_play_whose_worker_was_killed_at_the_host_is_no_verdict() -> None:
    words = Event(Kind.WORDS, message="[ERROR]: A worker was found in a dead state")
    assert judge(PROJECT, [Event(Kind.PHASE, Phase.PREPARE), words, replace(END, rc=250)]) is None


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("ssh: connect to host 192.0.2.1 port 22: Connection refused", FailureReason.HOST_UNREACHABLE),
        ("ssh: Could not resolve hostname nowhere: Name or service not known", FailureReason.HOST_UNREACHABLE),
        ("Connection timed out during banner exchange", FailureReason.HOST_UNREACHABLE),
        ("ssh: connect to host 192.0.2.1 port 22: No route to host", FailureReason.HOST_UNREACHABLE),
        ("something nobody has seen before", FailureReason.HOST_UNREACHABLE),
        ("WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!", FailureReason.HOST_KEY_MISMATCH),
        ("Host key verification failed.", FailureReason.HOST_KEY_MISMATCH),
        ("deploy@192.0.2.1: Permission denied (publickey).", FailureReason.AUTHENTICATION_FAILED),
        ("Received disconnect: Too many authentication failures", FailureReason.AUTHENTICATION_FAILED),
        ('Load key "/k": error in libcrypto\nPermission denied (publickey).', FailureReason.SSH_KEY_INVALID),
    ],
)
def test_sshs_words_give_the_reason_and_the_sentence_names_the_host(words: str, reason: FailureReason) -> None:
    end = unreachable(TARGET, words)
    assert end.reason is reason
    assert "web-1" in end.message


def test_a_host_that_is_lost_later_is_no_verdict() -> None:
    lost = Event(Kind.UNREACHABLE, task="Deploy", message="Shared connection closed")
    assert judge(PROJECT, [Event(Kind.PHASE, Phase.PREPARE), lost, END]) is None
    assert judge(PROJECT, [lost, END]) is not None


@pytest.mark.parametrize(
    ("phase", "where"),
    [
        (Phase.PREPARE, "while its files were prepared"),
        (Phase.BUILD, "while images were built"),
        (Phase.PULL, "while images were pulled"),
        (Phase.UP, "while the containers were brought up"),
        (Phase.VERIFY, "while the containers were watched"),
        (None, "at an unknown point"),
    ],
)
def test_a_canceled_run_says_how_far_it_had_come(phase: Phase | None, where: str) -> None:
    answer = replace(NOTHING_FOUND, marker=replace(MARKER, phase=phase))
    end = settle(PROJECT, Cause.CANCELED, answer, touched=True)
    assert (end.status, end.reason) == (RunStatus.CANCELED, FailureReason.CANCELED)
    assert where in end.message


def test_a_run_that_had_succeeded_before_its_cancel_arrived_has_succeeded() -> None:
    answer = replace(
        NOTHING_FOUND, marker=replace(MARKER, phase=Phase.VERIFY, state=MarkerState.DONE), containers=[WEB]
    )
    assert settle(PROJECT, Cause.CANCELED, answer, touched=True).status is RunStatus.SUCCESS


@pytest.mark.parametrize("cause", list(Cause))
def test_work_that_goes_on_is_never_called_canceled(cause: Cause) -> None:
    end = settle(PROJECT, cause, replace(NOTHING_FOUND, busy=True), touched=True)
    assert (end.status, end.reason) == (RunStatus.FAILED, FailureReason.INTERRUPTED)


@pytest.mark.parametrize("cause", [Cause.CANCELED, Cause.CRASHED, Cause.STOPPED, Cause.LOST])
def test_a_host_that_was_reached_and_cannot_be_asked_leaves_an_interrupted_run(cause: Cause) -> None:
    end = settle(PROJECT, cause, None, touched=True)
    assert (end.status, end.reason) == (RunStatus.FAILED, FailureReason.INTERRUPTED)
    assert "could not be asked" in end.message


def test_a_cancel_before_the_host_answered_is_a_cancel() -> None:
    assert settle(PROJECT, Cause.CANCELED, None, touched=False).status is RunStatus.CANCELED


def test_a_time_out_stays_one_whatever_the_host_answers() -> None:
    for answer in (None, NOTHING_FOUND, replace(NOTHING_FOUND, marker=MARKER)):
        assert settle(PROJECT, Cause.TIMEOUT, answer, touched=True).reason is FailureReason.TIMEOUT


def test_after_a_crash_the_hosts_verdict_counts() -> None:
    well = replace(NOTHING_FOUND, marker=MARKER, verdict=PhaseOutcome.OK, containers=[WEB])
    assert settle(PROJECT, Cause.CRASHED, well, touched=True).status is RunStatus.SUCCESS
    ill = replace(well, verdict=PhaseOutcome.FAILED, reason="UNHEALTHY", detail="web exited (3)")
    end = settle(PROJECT, Cause.CRASHED, ill, touched=True)
    assert (end.status, end.reason) == (RunStatus.FAILED, FailureReason.UNHEALTHY)
    assert "web exited (3)" in end.message


def test_after_a_crash_without_a_verdict_the_run_is_interrupted() -> None:
    end = settle(PROJECT, Cause.CRASHED, replace(NOTHING_FOUND, marker=MARKER), touched=True)
    assert (end.status, end.reason) == (RunStatus.FAILED, FailureReason.INTERRUPTED)
    assert "while the containers were brought up" in end.message


@pytest.mark.parametrize(
    ("phase", "begun"),
    [(phase, phase in {Phase.UP, Phase.VERIFY}) for phase in OF_ACTION[RunAction.UP]] + [(Phase.DOWN, False)],
)
def test_the_marker_on_the_host_says_whether_up_had_begun(phase: Phase, begun: bool) -> None:
    assert has_begun_up(PROJECT, replace(NOTHING_FOUND, marker=replace(MARKER, phase=phase))) is begun
    of_another = replace(MARKER, run=str(OLDER), phase=phase)
    assert not has_begun_up(PROJECT, replace(NOTHING_FOUND, marker=of_another))
    assert not has_begun_up(PROJECT, NOTHING_FOUND)


def test_a_later_runs_marker_tells_nothing_about_this_one() -> None:
    later = replace(NOTHING_FOUND, marker=Marker(str(uuid7()), Phase.VERIFY, MarkerState.DONE))
    end = settle(PROJECT, Cause.CRASHED, later, touched=False)
    assert end.reason is FailureReason.INTERRUPTED
    assert "another run has been on the host since" in end.message


def test_without_a_marker_nothing_was_changed() -> None:
    end = settle(PROJECT, Cause.CRASHED, NOTHING_FOUND, touched=False)
    assert end.reason is FailureReason.INTERRUPTED
    assert "before it had changed anything" in end.message


def test_the_answer_is_none_where_the_host_gave_none() -> None:
    assert Answer.read([Event(Kind.UNREACHABLE, task="Recover", message="Connection refused"), END]) is None
    assert (
        Answer.read([Event(Kind.FAILED, Phase.RECOVER, result=PhaseResult(reason="DOCKER_UNAVAILABLE")), END]) is None
    )


def test_an_older_runs_marker_tells_that_this_one_has_changed_nothing() -> None:
    older = replace(NOTHING_FOUND, marker=Marker(str(OLDER), Phase.VERIFY, MarkerState.DONE))
    end = settle(PROJECT, Cause.CANCELED, older, touched=False)
    assert end.message == "The run was canceled before it had changed anything on the host."


ED25519 = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"
PINNED = keys.fingerprint(f"* {ED25519}")
SHOWN = "SHA256:" + 43 * "x"
CHANGED = f"""@@@@@
@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @
The fingerprint for the ED25519 key sent by the remote host is
{SHOWN}.
Host key verification failed."""


def test_a_changed_key_is_told_with_both_fingerprints_and_what_to_do() -> None:
    end = unreachable(replace(TARGET, known_hosts=f"* {ED25519}\n"), CHANGED)
    assert f"another host key than the pinned one: shown is {SHOWN}; pinned is {PINNED}." in end.message
    assert "scanHostKey" in end.message
    assert "trustHostKey" in end.message


def test_a_certificate_that_does_not_fit_is_told() -> None:
    words = "Certificate invalid: expired\nHost key verification failed."
    end = unreachable(replace(TARGET, known_hosts=f"@cert-authority * {ED25519}\n"), words)
    assert end.reason is FailureReason.HOST_KEY_MISMATCH
    assert "no certificate of a trusted authority fits 192.0.2.1; its certificate is invalid: expired." in end.message


def test_a_host_without_a_key_is_told_how_it_gets_one() -> None:
    end = unknown_key(TARGET)
    assert end.reason is FailureReason.HOST_KEY_UNKNOWN
    assert "trustHostKey" in end.message
