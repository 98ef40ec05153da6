"""The phases Up and Verify on a real Docker: what it reports of each kind of state, and what the run says of it.

When a container is well is decided by `runner.host.health`; tests/runner/host/test_health.py has its table.
"""

import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from db.containers import Container, ContainerHealth, ContainerState
from db.phase import Phase
from tests.support.docker import Docker
from tests.support.machine import Machine, compose_that, service

UNHEALTHY_AT_ONCE = {"test": "echo refused; exit 4", "interval": "1s", "retries": 1}
NEVER_HEALTHY = {"test": "false", "interval": "1s", "retries": 100}


def test_a_container_that_exits_with_a_status_is_unhealthy(machine: Machine) -> None:
    play = machine.deploy({"web": service("sleep", "1000"), "job": service("sh", "-c", "echo no money >&2; exit 3")})
    assert (play.last.phase, play.last.reason) == (Phase.VERIFY, "UNHEALTHY")
    assert play.last.detail == "Service 'job' exited with code 3: no money."
    assert "job | no money" in play.last.lines
    job = replace(play.last.containers[0], started_at=None)
    assert job == Container(f"{machine.project}-job-1", "job", "demo:1", ContainerState.EXITED, exit_code=3)


def test_a_container_that_crashes_again_and_again_is_unhealthy(local: Machine) -> None:
    web = service("sh", "-c", "echo oh; exit 1", restart="always")
    play = local.deploy({"web": web}, timeouts={"run": 3})
    assert (play.last.phase, play.last.reason) == (Phase.VERIFY, "UNHEALTHY")
    assert re.fullmatch(r"Not up within \d+ s: web \((restarting|restarted)\)\.", play.last.detail)
    assert "web | oh" in play.last.lines
    assert play.last.containers[0].restarts > 2


def test_a_command_that_a_container_never_finds_fails_early(local: Machine) -> None:
    began = time.monotonic()
    play = local.deploy({"web": service("sh", "-c", "exit 127", restart="unless-stopped")})
    assert (play.last.phase, play.last.reason) == (Phase.VERIFY, "UNHEALTHY")
    assert "the last time it exited with code 127 (its command was not found)" in play.last.detail
    assert time.monotonic() - began < 20


def test_a_container_that_has_crashed_must_stay_up_for_ten_seconds_once(local: Machine) -> None:
    services = {"web": service("sh", "-c", "[ -e /crashed ] && exec sleep 1000; touch /crashed; exit 1")}
    services["web"]["restart"] = "always"
    began = time.monotonic()
    play = local.deploy(services)
    assert play.succeeded, play.output
    assert time.monotonic() - began > 10
    assert play.last.containers[0].restarts == 1

    began = time.monotonic()
    play = local.deploy(services)
    assert play.succeeded, play.output
    assert time.monotonic() - began < 8


def test_a_job_may_succeed_after_failures(local: Machine) -> None:
    once = "[ -e /crashed ] && exit 0; touch /crashed; exit 1"
    play = local.deploy({"job": service("sh", "-c", once, restart="on-failure")})
    assert play.succeeded, play.output
    assert [(found.state, found.exit_code) for found in play.last.containers] == [(ContainerState.EXITED, 0)]


def test_a_failing_health_check_is_unhealthy(machine: Machine) -> None:
    play = machine.deploy({"web": service("sleep", "1000", healthcheck=UNHEALTHY_AT_ONCE)})
    assert (play.last.phase, play.last.reason) == (Phase.VERIFY, "UNHEALTHY")
    assert play.last.detail == "Service 'web' is unhealthy: its health check exited with code 4: refused."
    assert [(found.state, found.health) for found in play.last.containers] == [
        (ContainerState.RUNNING, ContainerHealth.UNHEALTHY)
    ]


def test_a_slow_health_check_is_waited_for(local: Machine) -> None:
    slow = {"test": "[ -e /ready ]", "interval": "1s", "retries": 10}
    play = local.deploy(
        {"web": service("sh", "-c", "sleep 2; touch /ready; sleep 1000", healthcheck=slow)}, timeouts={"verify": 1}
    )
    assert play.succeeded, play.output
    assert "Waiting for web (starting)" in play[Phase.VERIFY].lines
    assert [found.health for found in play.last.containers] == [ContainerHealth.HEALTHY]


def test_a_health_check_that_never_decides_is_unhealthy_when_the_time_is_over(local: Machine) -> None:
    play = local.deploy({"web": service("sleep", "1000", healthcheck=NEVER_HEALTHY)}, timeouts={"run": 2})
    assert (play.last.phase, play.last.reason) == (Phase.VERIFY, "UNHEALTHY")
    assert play.last.detail.startswith("Not up within 2 s: web (starting).")
    assert "The health check of 'web' exited with code 1, without output." in play.last.detail


def test_a_container_that_was_unhealthy_before_the_run_may_recover(local: Machine, docker: Docker) -> None:
    check = {"test": "[ -e /ready ]", "interval": "1s", "retries": 1}
    services = {"web": service("sleep", "1000", healthcheck=check)}
    assert local.deploy(services).last.reason == "UNHEALTHY"
    (container,) = docker.containers(local.project)
    hook = f"docker exec {container} touch /ready"
    play = local.deploy(services, environment=compose_that(local.directory, after_up=hook))
    assert play.succeeded, play.output
    assert [found.health for found in play.last.containers] == [ContainerHealth.HEALTHY]


def test_a_container_must_stay_up_for_the_settle_time(local: Machine) -> None:
    play = local.deploy({"web": service("sh", "-c", "sleep 1; exit 3")}, settle=2.0)
    assert play.last.detail == "Service 'web' exited with code 3."


def test_a_paused_container_is_not_up(local: Machine, tmp_path: Path) -> None:
    environment = compose_that(tmp_path, after_up=f"docker pause {local.project}-web-1")
    play = local.deploy({"web": service("sleep", "1000")}, environment=environment, timeouts={"verify": 1})
    assert (play.last.phase, play.last.reason) == (Phase.VERIFY, "UNHEALTHY")
    assert play.last.detail == "Not up within 1 s: web (paused)."


def test_a_container_that_vanished_is_missed(local: Machine, tmp_path: Path) -> None:
    environment = compose_that(tmp_path, after_up=f"docker rm --force {local.project}-web-1")
    play = local.deploy({"web": service("sleep", "1000")}, environment=environment)
    assert (play.last.phase, play.last.reason) == (Phase.VERIFY, "UNHEALTHY")
    assert play.last.detail == "Service 'web' has no container."


def test_a_container_of_compose_run_is_no_service(local: Machine, docker: Docker) -> None:
    local.deploy({"web": service("sleep", "1000")})
    project = ("compose", "--project-directory", str(local.files), "--project-name", local.project)
    docker.run(*project, "run", "--detach", "web", "false")
    play = local.deploy({"web": service("sleep", "1000")})
    assert play.succeeded, play.output
    assert len(play.last.containers) == 1


@pytest.mark.parametrize(
    ("condition", "dependency", "detail"),
    [
        (
            "service_healthy",
            service("sleep", "1000", healthcheck=UNHEALTHY_AT_ONCE),
            "Service 'db' is unhealthy: its health check exited with code 4: refused.",
        ),
        (
            "service_healthy",
            service("sh", "-c", "echo no disk; exit 4", healthcheck=NEVER_HEALTHY),
            "Service 'db' exited with code 4: no disk.",
        ),
        ("service_completed_successfully", service("sh", "-c", "exit 3"), "Service 'db' exited with code 3."),
    ],
)
def test_a_dependency_that_fails_is_unhealthy(
    local: Machine, condition: str, dependency: dict[str, Any], detail: str
) -> None:
    web = service("sleep", "1000", depends_on={"db": {"condition": condition}})
    play = local.deploy({"web": web, "db": dependency})
    assert (play.last.phase, play.last.reason, play.last.detail) == (Phase.UP, "UNHEALTHY", detail)
    assert [found.service for found in play.last.containers] == ["db", "web"]


def test_a_dependency_that_does_not_get_healthy_in_time_is_unhealthy(local: Machine) -> None:
    web = service("sleep", "1000", depends_on={"db": {"condition": "service_healthy"}})
    db = service("sleep", "1000", healthcheck=NEVER_HEALTHY)
    play = local.deploy({"web": web, "db": db}, timeouts={"up": 2})
    assert (play.last.phase, play.last.reason) == (Phase.UP, "UNHEALTHY")
    assert re.match(r"Not up within \d+ s: ", play.last.detail)
    assert "db (starting)" in play.last.detail


def test_a_job_that_takes_too_long_is_a_timeout(local: Machine) -> None:
    web = service("sleep", "1000", depends_on={"job": {"condition": "service_completed_successfully"}})
    play = local.deploy({"web": web, "job": service("sleep", "1000")}, timeouts={"up": 2})
    assert (play.last.phase, play.last.reason) == (Phase.UP, "TIMEOUT")
    assert play.last.detail == "Up did not finish within 2 s."


def test_a_command_that_cannot_be_started_fails_the_task(local: Machine) -> None:
    play = local.deploy({"web": service("/nonexistent", init=False)})
    assert (play.last.phase, play.last.reason) == (Phase.UP, "TASK_FAILED")
    assert "/nonexistent" in play.last.detail


def test_a_port_that_is_in_use_is_named(local: Machine, docker: Docker) -> None:
    web = {"image": "demo:1", "command": ["sleep", "1000"], "init": True}
    play = local.deploy({"one": web | {"ports": ["127.0.0.1::80"]}})
    assert play.succeeded, play.output
    (published,) = play.last.containers[0].ports
    address, _ = published.split("->")
    play = local.deploy({"one": web | {"ports": [f"{address}:80"]}, "two": web | {"ports": [f"{address}:81"]}})
    assert (play.last.phase, play.last.reason) == (Phase.UP, "PORT_IN_USE")
    assert f"Port {address.split(':')[1]} of address 127.0.0.1 is in use by another container" in play.last.detail
