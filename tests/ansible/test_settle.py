"""settle.yml: what is left is ended, and what the host tells is what happened there."""

import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.ansible.machine import Machine, kill_with_children, service, wait_for
from tests.ansible.test_ending import HANGING, is_waiting_in_up
from tests.support.docker import Docker

WEB = {"web": service("sleep", "1000")}


def play_until(
    machine: Machine, last: str, services: Mapping[str, Any], files: Mapping[str, str] | None = None
) -> None:
    """The phases up to `last`, as a run whose server dies then."""
    machine.begin(services, files)
    for phase in ("prepare", "pull", "up", "verify"):
        assert not machine.phase(phase).failed
        if phase == last:
            return


def pretend(machine: Machine, **marker: str) -> None:
    """Change the marker, as a script that was killed would have left it."""
    changed = {**machine.marker, **marker}
    (machine.state / "run").write_text("".join(f"{key}={value}\n" for key, value in changed.items()))


def contents(directory: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file() and path.name != "lock"}


@contextmanager
def at_work(machine: Machine) -> Iterator["subprocess.Popen[str]"]:
    """A script that hangs in Up, and somebody who keeps listening to it."""
    play_until(machine, "pull", HANGING)
    with subprocess.Popen(
        ["/bin/sh", "-c", machine.command("up")],
        env={**os.environ, "HOME": str(machine.home)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    ) as script:
        wait_for(lambda: is_waiting_in_up(machine))
        try:
            yield script
        finally:
            for pid in machine.processes():
                os.kill(pid, 9)


def test_where_nothing_happened_nothing_is_told(machine: Machine) -> None:
    machine.begin(WEB)
    told = machine.settle()
    assert (told.marker, told.busy, told.matching, told.verdict, told.services) == (None, False, False, None, [])
    assert not machine.state.exists()


def test_a_finished_run_is_ok(machine: Machine) -> None:
    machine.deploy(WEB)
    told = machine.settle()
    assert (told.busy, told.matching, told.verdict, told.reason) == (False, True, "ok", None)
    assert told.marker == {
        "run": machine.run,
        "deployment": machine.deployment,
        "action": "UP",
        "phase": "verify",
        "state": "done",
    }
    assert [service["state"] for service in told.services] == ["running"]


def test_settle_changes_nothing(local: Machine) -> None:
    play_until(local, "up", WEB, {"page": "x"})
    before = contents(local.home / ".daos")
    local.phase("settle")
    assert contents(local.home / ".daos") == before


def test_files_that_were_only_unpacked_are_cleared_away(local: Machine) -> None:
    play_until(local, "prepare", WEB)
    half = local.files.with_suffix(".new")
    half.mkdir()
    (half / ".env").write_text("PASSWORD=hunter2")
    notes = [local.state / name for name in ("manifest.new", "images.new", "run.new")]
    for note in notes:
        note.touch()
    local.phase("settle")
    assert [path for path in (half, *notes) if path.exists()] == []


@pytest.mark.parametrize("marker", [{"phase": "up", "state": "running"}, {"phase": "verify", "state": "running"}])
def test_a_run_that_had_done_its_work_before_the_crash_is_ok(local: Machine, marker: dict[str, str]) -> None:
    play_until(local, "up", WEB)
    pretend(local, **marker)
    assert local.phase("settle").verdict == "ok"


def test_a_run_whose_container_crashed_meanwhile_failed(local: Machine) -> None:
    play_until(local, "up", {"job": service("sh", "-c", "exit 3")})
    told = local.phase("settle")
    assert not told.failed
    assert (told.matching, told.verdict, told.reason) == (True, "failed", "UNHEALTHY")
    assert told.detail == "Service 'job' exited with code 3."


def test_a_run_that_failed_before_the_crash_failed_for_its_reason(local: Machine) -> None:
    local.begin("services: [")
    reported = local.phase("prepare")
    told = local.phase("settle")
    assert (told.verdict, told.reason, told.detail) == ("failed", "COMPOSE_INVALID", reported.detail)


@pytest.mark.parametrize("phase", ["prepare", "pull"])
def test_a_run_that_had_not_come_to_up_has_no_verdict(local: Machine, phase: str) -> None:
    play_until(local, "verify", WEB)
    play_until(local, phase, {"web": service("sleep", "2000")})
    told = local.phase("settle")
    assert (told.matching, told.verdict) == (False, None)
    assert [service["state"] for service in told.services] == ["running"]


def test_a_run_that_was_killed_in_up_has_no_verdict(machine: Machine) -> None:
    machine.begin(HANGING)
    with machine.playing("deploy.yml") as ansible:
        wait_for(lambda: is_waiting_in_up(machine))
        kill_with_children(ansible.pid, keep="/bin/sh")
        told = machine.settle()
    assert (told.busy, told.matching, told.verdict) == (False, False, None)
    assert (told.marker["phase"], told.marker["state"]) == ("up", "running")
    assert [service["state"] for service in told.services] == ["running", "created"]
    wait_for(lambda: not machine.processes(), seconds=2)


def test_another_run_of_the_deployment_has_no_verdict(local: Machine) -> None:
    play_until(local, "verify", WEB)
    marker, local.run = local.run, str(uuid4())
    told = local.phase("settle")
    assert (told.marker["run"], told.matching, told.verdict) == (marker, True, None)


def test_work_that_somebody_still_listens_to_is_ended(local: Machine) -> None:
    with at_work(local) as script:
        told = local.phase("settle")
        assert script.wait(timeout=5) != 0
    assert told.busy is False
    assert told.marker["run"] == local.run
    wait_for(lambda: not local.processes(), seconds=2)


def test_work_of_another_deployment_is_left_alone(local: Machine) -> None:
    with at_work(local) as script:
        local.deployment = str(uuid4())
        told = local.phase("settle", timeouts={"settle": 2})
        assert script.poll() is None
    assert (told.busy, told.verdict) == (True, None)


def test_mounted_files_that_no_container_has_seen_yet_do_not_match(local: Machine) -> None:
    web = {"web": service("sleep", "1000", volumes=["./page:/page:ro"])}
    play_until(local, "verify", web, {"page": "old"})
    play_until(local, "pull", web, {"page": "new"})
    pretend(local, phase="up", state="running")
    told = local.phase("settle")
    assert (told.matching, told.verdict) == (False, None)
    local.phase("up")
    told = local.phase("settle")
    assert (told.matching, told.verdict) == (True, "ok")


def test_services_scaled_to_zero_match(local: Machine) -> None:
    play_until(local, "up", {"web": service("sleep", "1000"), "none": service("sleep", "1000", scale=0)})
    assert local.phase("settle").matching


def test_a_service_without_its_container_does_not_match(local: Machine, docker: Docker) -> None:
    play_until(local, "up", {"web": service("sleep", "1000"), "db": service("sleep", "1000")})
    docker.run("rm", "--force", docker.containers(local.project)[0])
    assert not local.phase("settle").matching


def test_a_finished_down_is_ok(machine: Machine) -> None:
    machine.deploy(WEB)
    machine.down()
    told = machine.settle()
    assert (told.verdict, told.services, told.marker["action"]) == ("ok", [], "DOWN")


def test_a_down_that_was_killed_has_no_verdict_while_containers_are_left(local: Machine) -> None:
    play_until(local, "verify", WEB)
    pretend(local, action="DOWN", phase="down", state="running")
    told = local.phase("settle")
    assert told.verdict is None
    assert len(told.services) == 1


def test_a_daemon_that_does_not_answer_fails_the_question(local: Machine) -> None:
    told = local.phase("settle", environment={"DOCKER_HOST": "unix:///nonexistent.sock"})
    assert told.failed
    assert told.reason == "DOCKER_UNAVAILABLE"
