"""The phases Up and Verify: when a project is up, and why it is not."""

import time
from typing import Any

import pytest

from tests.ansible.machine import Machine, service
from tests.support.docker import Docker

UNHEALTHY_AT_ONCE = {"test": "false", "interval": "1s", "retries": 1}
NEVER_HEALTHY = {"test": "false", "interval": "1s", "retries": 100}


def test_a_container_that_exits_with_a_status_is_unhealthy(machine: Machine) -> None:
    play = machine.deploy({"web": service("sleep", "1000"), "job": service("sh", "-c", "echo no money >&2; exit 3")})
    assert (play.last.phase, play.last.reason) == ("verify", "UNHEALTHY")
    assert play.last.detail == "Service 'job' exited with code 3."
    assert play.last.lines == ["job | no money"]
    assert play.last.services[0] == {
        "name": "job",
        "image": "demo:1",
        "state": "exited",
        "health": None,
        "exitCode": 3,
    }


@pytest.mark.parametrize("policy", ["always", "on-failure", "unless-stopped"])
def test_a_container_that_crashes_at_once_again_and_again_is_unhealthy(local: Machine, policy: str) -> None:
    play = local.deploy({"web": service("sh", "-c", "echo oh; exit 1", restart=policy)})
    assert (play.last.phase, play.last.reason) == ("verify", "UNHEALTHY")
    assert play.last.detail.startswith("Service 'web' restarted 5 times")
    assert "web | oh" in play.last.lines


def test_a_container_that_crashes_after_a_while_again_and_again_is_unhealthy(local: Machine) -> None:
    play = local.deploy({"web": service("sh", "-c", "sleep 1; exit 1", restart="always")}, settle=1.5)
    assert (play.last.phase, play.last.reason) == ("verify", "UNHEALTHY")
    assert play.last.detail.startswith("Service 'web' restarted 5 times")


def test_a_container_that_has_crashed_must_stay_up_for_ten_seconds(local: Machine) -> None:
    once = "[ -e /crashed ] && exec sleep 1000; touch /crashed; exit 1"
    began = time.monotonic()
    play = local.deploy({"web": service("sh", "-c", once, restart="always")})
    assert play.succeeded, play.output
    assert time.monotonic() - began > 10


def test_a_crash_loop_from_before_the_run_is_still_one(local: Machine, docker: Docker) -> None:
    services = {"web": service("sh", "-c", "sleep 2; exit 1", restart="always")}
    local.deploy(services, settle=0.1)
    (container,) = docker.containers(local.project)
    while docker.run("inspect", "--format", "{{.RestartCount}} {{.State.Status}}", container) != "2 running\n":
        pass
    play = local.deploy(services, settle=0.1, timeouts={"verify": 5})
    assert play.last.reason == "UNHEALTHY"


def test_a_job_may_succeed_after_failures(local: Machine) -> None:
    once = "[ -e /crashed ] && exit 0; touch /crashed; exit 1"
    play = local.deploy({"job": service("sh", "-c", once, restart="on-failure")})
    assert play.succeeded, play.output


def test_a_job_that_is_to_be_restarted_for_ever_never_succeeds(local: Machine) -> None:
    play = local.deploy({"job": service("true", restart="always")})
    assert play.last.reason == "UNHEALTHY"


def test_a_failing_health_check_is_unhealthy(machine: Machine) -> None:
    play = machine.deploy({"web": service("sleep", "1000", healthcheck=UNHEALTHY_AT_ONCE)})
    assert (play.last.phase, play.last.reason) == ("verify", "UNHEALTHY")
    assert play.last.detail == "Service 'web' is unhealthy."
    assert [(service["state"], service["health"]) for service in play.last.services] == [("running", "unhealthy")]


def test_a_slow_health_check_is_waited_for(local: Machine) -> None:
    slow = {"test": "[ -e /ready ]", "interval": "1s", "retries": 10}
    play = local.deploy({"web": service("sh", "-c", "sleep 2; touch /ready; sleep 1000", healthcheck=slow)})
    assert play.succeeded, play.output
    assert [service["health"] for service in play.last.services] == ["healthy"]


def test_a_health_check_that_never_decides_is_unhealthy_when_the_time_is_over(local: Machine) -> None:
    play = local.deploy({"web": service("sleep", "1000", healthcheck=NEVER_HEALTHY)}, timeouts={"verify": 2})
    assert (play.last.phase, play.last.reason) == ("verify", "UNHEALTHY")
    assert play.last.detail == "Not up within 2 s: web (starting)."


def test_a_container_must_stay_up_for_the_settle_time(local: Machine) -> None:
    play = local.deploy({"web": service("sh", "-c", "sleep 1; exit 3")}, settle=2.0)
    assert play.last.detail == "Service 'web' exited with code 3."


def test_a_healthy_container_is_not_made_to_settle(local: Machine) -> None:
    healthy = {"test": "true", "interval": "1s"}
    began = time.monotonic()
    play = local.deploy({"web": service("sleep", "1000", healthcheck=healthy)}, settle=20.0)
    assert play.succeeded, play.output
    assert time.monotonic() - began < 15


def test_a_paused_container_is_not_up(local: Machine, docker: Docker) -> None:
    local.begin({"web": service("sleep", "1000")})
    for phase in ("prepare", "pull", "up"):
        local.phase(phase)
    docker.run("pause", *docker.containers(local.project))
    result = local.phase("verify", timeouts={"verify": 1})
    assert result.reason == "UNHEALTHY"
    assert result.detail == "Not up within 1 s: web (paused)."


def test_a_container_that_vanished_is_missed(local: Machine, docker: Docker) -> None:
    local.begin({"web": service("sleep", "1000")})
    for phase in ("prepare", "pull", "up"):
        local.phase(phase)
    docker.run("rm", "--force", *docker.containers(local.project))
    result = local.phase("verify")
    assert result.reason == "UNHEALTHY"
    assert result.detail == f"Project '{local.project}' has no containers."


def test_a_container_of_compose_run_is_no_service(local: Machine, docker: Docker) -> None:
    local.deploy({"web": service("sleep", "1000")})
    project = ("compose", "--project-directory", str(local.files), "--project-name", local.project)
    docker.run(*project, "run", "--detach", "web", "false")
    play = local.deploy({"web": service("sleep", "1000")})
    assert play.succeeded, play.output
    assert len(play.last.services) == 1


@pytest.mark.parametrize(
    ("condition", "dependency", "detail"),
    [
        ("service_healthy", service("sleep", "1000", healthcheck=UNHEALTHY_AT_ONCE), "Service 'db' is unhealthy."),
        (
            "service_healthy",
            service("sh", "-c", "exit 4", healthcheck=NEVER_HEALTHY),
            "Service 'db' exited with code 4.",
        ),
        ("service_completed_successfully", service("sh", "-c", "exit 3"), "Service 'db' exited with code 3."),
    ],
)
def test_a_dependency_that_fails_is_unhealthy(
    local: Machine, condition: str, dependency: dict[str, Any], detail: str
) -> None:
    web = service("sleep", "1000", depends_on={"db": {"condition": condition}})
    play = local.deploy({"web": web, "db": dependency})
    assert (play.last.phase, play.last.reason, play.last.detail) == ("up", "UNHEALTHY", detail)
    assert [service["name"] for service in play.last.services] == ["db", "web"]


def test_a_dependency_that_does_not_get_healthy_in_time_is_unhealthy(local: Machine) -> None:
    web = service("sleep", "1000", depends_on={"db": {"condition": "service_healthy"}})
    db = service("sleep", "1000", healthcheck=NEVER_HEALTHY)
    play = local.deploy({"web": web, "db": db}, timeouts={"up": 2})
    assert (play.last.phase, play.last.reason) == ("up", "UNHEALTHY")
    assert play.last.detail.startswith("Not up within 2 s: ")
    assert "db (starting)" in play.last.detail


def test_a_job_that_takes_too_long_is_a_timeout(local: Machine) -> None:
    web = service("sleep", "1000", depends_on={"job": {"condition": "service_completed_successfully"}})
    play = local.deploy({"web": web, "job": service("sleep", "1000")}, timeouts={"up": 2})
    assert (play.last.phase, play.last.reason) == ("up", "TIMEOUT")
    assert play.last.detail == "Up did not finish within 2 s."


def test_a_command_that_cannot_be_started_fails_the_task(local: Machine) -> None:
    play = local.deploy({"web": service("/nonexistent", init=False)})
    assert (play.last.phase, play.last.reason) == ("up", "TASK_FAILED")
    assert "/nonexistent" in play.last.detail
