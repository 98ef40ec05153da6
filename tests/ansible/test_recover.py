"""recover.yml: what is left is ended, and what the host tells is what happened there."""

import json
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from db.containers import ContainerState
from db.phase import Phase, PhaseOutcome
from runner.play.event import Marker, MarkerState
from tests.ansible.test_ending import HANGING, is_waiting_in_up
from tests.support.docker import Docker
from tests.support.machine import PLAYBOOKS, Machine, Result, kill_with_children, service, wait_for

WEB = {"web": service("sleep", "1000")}


def play_until(
    machine: Machine, last: Phase, services: Mapping[str, Any] | str, files: Mapping[str, str] | None = None
) -> None:
    """The phases up to `last`, as a run whose server dies then."""
    machine.begin(services, files)
    phases = PLAYBOOKS["deploy.yml"]
    ended = machine.run_phases(*phases[: phases.index(last) + 1])
    assert not ended[-1].failed, ended[-1].detail


def cut_off(
    machine: Machine, words: str, services: Mapping[str, Any] | str, files: Mapping[str, str] | None = None
) -> None:
    """A run whose script is killed as it starts the program whose command line has these words."""
    programs = machine.directory / "programs"
    programs.mkdir(exist_ok=True)
    for name in ("mv", "cp", "timeout"):
        (programs / name).write_text(
            f"""#!/bin/sh
case "${{0##*/}} $*" in
    *"{words}"*)
        read -r pid _ <{machine.state}/lock
        kill -KILL "$pid"
        exit 1 ;;
esac
PATH=${{PATH#*:}}
exec "${{0##*/}}" "$@"
"""
        )
        (programs / name).chmod(0o755)
    machine.begin(services, files)
    path = f"{programs}:{os.environ['PATH']}"
    ended = machine.run_phases(*PLAYBOOKS["deploy.yml"], environment={"PATH": path})
    assert ended[-1].detail.startswith("The command on the host ended with status -9"), ended[-1].detail


def pretend(machine: Machine, **marker: str) -> None:
    """Change the marker, as a script that was killed would have left it."""
    changed = {**machine.marker, **marker}
    (machine.state / "run").write_text("".join(f"{key}={value}\n" for key, value in changed.items()))


def contents(directory: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file() and path.name != "lock"}


@contextmanager
def at_work(machine: Machine) -> Iterator[Future[list[Result]]]:
    """A script that hangs in Up, and somebody who keeps listening to it."""
    machine.begin(HANGING)
    with machine.running(Phase.PREPARE, Phase.BUILD, Phase.PULL, Phase.UP) as script:
        wait_for(lambda: is_waiting_in_up(machine))
        yield script


def test_where_nothing_happened_nothing_is_told(machine: Machine) -> None:
    machine.begin(WEB)
    told = machine.recover()
    assert (told.marker, told.is_busy, told.verdict, told.containers) == (None, False, None, [])
    assert not machine.state.exists()


def test_a_finished_run_is_ok(machine: Machine) -> None:
    machine.deploy(WEB)
    told = machine.recover()
    assert (told.is_busy, told.verdict, told.reason) == (False, PhaseOutcome.OK, None)
    assert told.marker == Marker(machine.run, Phase.VERIFY, MarkerState.DONE)
    assert [container.state for container in told.containers] == [ContainerState.RUNNING]


def test_recover_changes_nothing(local: Machine) -> None:
    play_until(local, Phase.UP, WEB, {"page": "x"})
    before = contents(local.home / ".daos")
    local.phase(Phase.RECOVER)
    assert contents(local.home / ".daos") == before


def test_files_that_were_only_unpacked_are_cleared_away(local: Machine) -> None:
    play_until(local, Phase.PREPARE, WEB)
    tree = local.home / ".daos/trees" / local.project
    halves = [local.files.with_suffix(".new"), tree.with_suffix(".new")]
    for half in halves:
        half.mkdir(parents=True)
        (half / ".env").write_text("PASSWORD=hunter2")
    notes = [local.state / name for name in ("new/manifest", "new/json", "new/run", "new/notes")]
    for note in notes:
        note.touch()
    local.phase(Phase.RECOVER)
    assert [path for path in (*halves, *notes) if path.exists()] == []


@pytest.mark.parametrize("marker", [{"phase": "up", "state": "running"}, {"phase": "verify", "state": "running"}])
def test_a_run_that_had_done_its_work_before_the_crash_is_ok(local: Machine, marker: dict[str, str]) -> None:
    play_until(local, Phase.UP, WEB)
    pretend(local, **marker)
    assert local.phase(Phase.RECOVER).verdict is PhaseOutcome.OK


def test_a_run_whose_container_crashed_meanwhile_failed(local: Machine) -> None:
    play_until(local, Phase.UP, {"job": service("sh", "-c", "exit 3")})
    told = local.phase(Phase.RECOVER)
    assert not told.failed
    assert (told.verdict, told.reason) == (PhaseOutcome.FAILED, "UNHEALTHY")
    assert told.detail == "Service 'job' exited with code 3."


def test_a_run_that_failed_before_the_crash_failed_for_its_reason(local: Machine) -> None:
    local.begin("services: [")
    reported = local.phase(Phase.PREPARE)
    told = local.phase(Phase.RECOVER)
    assert (told.verdict, told.reason, told.detail) == (PhaseOutcome.FAILED, "COMPOSE_INVALID", reported.detail)


@pytest.mark.parametrize("phase", [Phase.PREPARE, Phase.BUILD, Phase.PULL])
def test_a_run_that_had_not_come_to_up_has_no_verdict(local: Machine, phase: Phase) -> None:
    play_until(local, Phase.VERIFY, WEB)
    play_until(local, phase, {"web": service("sleep", "2000")})
    told = local.phase(Phase.RECOVER)
    assert told.verdict is None
    assert [container.state for container in told.containers] == [ContainerState.RUNNING]


def test_a_run_that_was_killed_in_up_has_no_verdict(machine: Machine) -> None:
    machine.begin(HANGING)
    with machine.playing("deploy.yml") as ansible:
        wait_for(lambda: is_waiting_in_up(machine))
        kill_with_children(ansible.pid, keep="/bin/sh")
        told = machine.recover()
    assert (told.is_busy, told.verdict) == (False, None)
    assert told.marker == Marker(machine.run, Phase.UP, MarkerState.RUNNING)
    assert [container.state for container in told.containers] == [ContainerState.RUNNING, ContainerState.CREATED]
    wait_for(lambda: not machine.processes(), seconds=2)


def test_another_run_of_the_deployment_has_no_verdict(local: Machine) -> None:
    play_until(local, Phase.VERIFY, WEB)
    marker, local.run = local.run, str(uuid4())
    told = local.phase(Phase.RECOVER)
    assert (told.marker.run, told.verdict) == (marker, None)


def test_work_that_somebody_still_listens_to_is_ended(local: Machine) -> None:
    with at_work(local) as script:
        told = local.phase(Phase.RECOVER)
        assert script.result(timeout=5)[-1].failed
    assert told.is_busy is False
    assert told.marker.run == local.run
    wait_for(lambda: not local.processes(), seconds=2)


def test_work_of_another_deployment_is_left_alone(local: Machine) -> None:
    with at_work(local) as script:
        local.deployment = str(uuid4())
        told = local.phase(Phase.RECOVER, timeouts={"recover": 2})
        assert not script.done()
    assert (told.is_busy, told.verdict) == (True, None)


@pytest.mark.parametrize(
    "words",
    [
        "mv -f delete links move model.json notes",
        "cp -Rp",  # the first thing after the notes
        "mv -f {files}.new/./b/page",  # the file of the other directory is moved
        "mv -f {state}/new/manifest",
    ],
)
def test_a_run_that_was_cut_off_while_files_were_moved_has_no_verdict(
    local: Machine, docker: Docker, words: str
) -> None:
    web = {"web": service("sleep", "1000", volumes=["./a/page:/a:ro", "./b/page:/b:ro"])}
    play_until(local, Phase.VERIFY, web, {"a/page": "old", "b/page": "old"})
    new = {"a/page": "new", "b/page": "new"}
    cut_off(local, words.format(state=local.state, files=local.files), web, new)
    told = local.phase(Phase.RECOVER)
    assert (told.is_busy, told.verdict) == (False, None)
    assert [container.state for container in told.containers] == [ContainerState.RUNNING]
    assert local.deploy(web, new).succeeded
    assert docker.run("exec", docker.containers(local.project)[0], "cat", "/a", "/b") == "newnew"
    assert local.phase(Phase.RECOVER).verdict is PhaseOutcome.OK


def built() -> dict[str, Any]:
    return {key: value for key, value in service("sleep", "1000", build=".").items() if key != "image"}


def compose_file(web: Mapping[str, Any], **more: Any) -> str:
    return json.dumps({"services": {"web": web}, **more})


CONFIG = service("sleep", "1000", configs=[{"source": "page", "target": "/page"}])
FILE = service("sleep", "1000", volumes=["./page:/page:ro"])


@pytest.mark.parametrize(
    ("old", "new", "files"),
    [
        (compose_file(FILE), compose_file(FILE), {}),
        (
            compose_file(CONFIG, configs={"page": {"content": "old"}}),
            compose_file(CONFIG, configs={"page": {"content": "new"}}),
            {},
        ),
        (compose_file(built()), compose_file(built()), {"Dockerfile": "FROM demo:1\nCOPY page /page"}),
    ],
    ids=["a mounted file", "a config", "a built image"],
)
def test_a_run_that_was_cut_off_before_a_stale_container_was_recreated_has_no_verdict(
    local: Machine, docker: Docker, old: str, new: str, files: dict[str, str]
) -> None:
    """Compose's hash of the service is the same before and after."""
    play_until(local, Phase.VERIFY, old, files | {"page": "old"})
    before = docker.containers(local.project)
    cut_off(local, "up --detach", new, files | {"page": "new"})
    told = local.phase(Phase.RECOVER)
    assert told.marker == Marker(local.run, Phase.UP, MarkerState.RUNNING)
    assert told.verdict is None
    assert docker.containers(local.project) == before
    assert local.deploy(new, files | {"page": "new"}).succeeded
    assert docker.run("exec", docker.containers(local.project)[0], "cat", "/page") == "new"
    assert local.phase(Phase.RECOVER).verdict is PhaseOutcome.OK


def test_services_scaled_to_zero_match(local: Machine) -> None:
    play_until(local, Phase.UP, {"web": service("sleep", "1000"), "none": service("sleep", "1000", scale=0)})
    assert local.phase(Phase.RECOVER).verdict is PhaseOutcome.OK


def test_a_service_without_its_container_does_not_match(local: Machine, docker: Docker) -> None:
    play_until(local, Phase.UP, {"web": service("sleep", "1000"), "db": service("sleep", "1000")})
    docker.run("rm", "--force", docker.containers(local.project)[0])
    assert local.phase(Phase.RECOVER).verdict is None


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1)])
def test_a_run_that_was_cut_off_before_a_service_was_scaled_has_no_verdict(
    local: Machine, before: int, after: int
) -> None:
    """Compose's hash of a service does not have the number of its containers."""
    play_until(local, Phase.VERIFY, {"web": service("sleep", "1000", scale=before)})
    cut_off(local, "up --detach", {"web": service("sleep", "1000", scale=after)})
    assert local.phase(Phase.RECOVER).verdict is None


def test_a_run_that_was_cut_off_before_a_service_was_removed_has_no_verdict(local: Machine) -> None:
    play_until(local, Phase.VERIFY, {"web": service("sleep", "1000"), "db": service("sleep", "1000")})
    cut_off(local, "up --detach", WEB)
    assert local.phase(Phase.RECOVER).verdict is None


def test_a_finished_down_is_ok(machine: Machine) -> None:
    machine.deploy(WEB)
    machine.down()
    told = machine.recover()
    assert (told.verdict, told.containers, told.marker.phase) == (PhaseOutcome.OK, [], Phase.DOWN)


def test_a_down_that_was_killed_has_no_verdict_while_containers_are_left(local: Machine) -> None:
    play_until(local, Phase.VERIFY, WEB)
    pretend(local, action="DOWN", phase="down", state="running")
    told = local.phase(Phase.RECOVER)
    assert told.verdict is None
    assert len(told.containers) == 1


def test_a_daemon_that_does_not_answer_fails_the_question(local: Machine) -> None:
    told = local.phase(Phase.RECOVER, environment={"DOCKER_HOST": "unix:///nonexistent.sock"})
    assert told.failed
    assert told.reason == "DOCKER_UNAVAILABLE"
