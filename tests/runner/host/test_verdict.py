"""The sentences about containers that are not well."""

import pytest

from runner.host.verdict import Finding, Kind, Verdict

EXITED = Finding("web", "exited with code 3", "w1", has_failed=True, crashed=True)
UNHEALTHY = Finding("db", "is unhealthy", "d1", check="exited with code 4: refused", has_failed=True)
STARTING = Finding("db", "starting", "d1", check="exited with code 4: refused")


@pytest.mark.parametrize(
    ("finding", "last_line", "sentence"),
    [
        (EXITED, "", "Service 'web' exited with code 3."),
        (EXITED, "\x1b[31mno money\x1b[0m\n", "Service 'web' exited with code 3: no money."),
        (UNHEALTHY, "GET /", "Service 'db' is unhealthy: its health check exited with code 4: refused."),
        (Finding("web", "is dead", "w2", "shop-web-2"), "", "Service 'web' (container shop-web-2) is dead."),
        (Finding("web", "has no container"), "", "Service 'web' has no container."),
    ],
)
def test_one_sentence_with_what_was_printed_last(finding: Finding, last_line: str, sentence: str) -> None:
    assert finding.sentence(last_line) == sentence


def test_a_long_log_line_is_cut() -> None:
    assert len(EXITED.sentence("x" * 5000)) < 250


def test_the_message_has_each_last_line_with_its_container() -> None:
    verdict = Verdict(Kind.FAILED, (EXITED, UNHEALTHY))
    assert verdict.troubled == {"w1": "web", "d1": "db"}
    assert verdict.message({"w1": "no money"}) == (
        "Service 'web' exited with code 3: no money. "
        "Service 'db' is unhealthy: its health check exited with code 4: refused."
    )


def test_containers_of_one_service_have_logs_of_their_own() -> None:
    findings = tuple(Finding("web", "is dead", f"w{number}", f"shop-web-{number}") for number in (1, 2))
    assert Verdict(Kind.FAILED, findings).troubled == {"w1": "shop-web-1", "w2": "shop-web-2"}


def test_the_same_sentence_appears_once() -> None:
    assert Verdict(Kind.FAILED, (EXITED, EXITED)).message() == "Service 'web' exited with code 3."


def test_what_waits_can_expire() -> None:
    verdict = Verdict(Kind.WAIT, (STARTING, Finding("web", "created", "w1")), waited=2.04, next_in=0.2).expire()
    assert (verdict.kind, verdict.late, verdict.next_in) == (Kind.FAILED, True, 0.0)
    assert verdict.troubled == {"d1": "db", "w1": "web"}
    assert verdict.message() == (
        "Not up within 2 s: db (starting), web (created). The health check of 'db' exited with code 4: refused."
    )


@pytest.mark.parametrize("verdict", [Verdict(Kind.OK), Verdict(Kind.FAILED, (EXITED,))])
def test_what_is_decided_does_not_expire(verdict: Verdict) -> None:
    assert verdict.expire() is verdict
