"""The phase Prepare: whose project it is, and what is refused before anything has changed.

It delivers the package beside the project; how Up moves it there is tested in test_files.py.
"""

import fcntl
import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from db.containers import ContainerState
from db.phase import Phase
from runner.host.delivery import Delivery
from tests.support.docker import Docker
from tests.support.machine import Machine, Result, compose_by_docker, compose_that, contents, service

WEB = {"web": service("sleep", "1000")}


def prepare(machine: Machine, files: dict[str, str] | None = None) -> Result:
    machine.begin(WEB, files)
    return machine.phase(Phase.PREPARE)


def test_the_marker_tells_the_run_and_how_far_it_got(local: Machine) -> None:
    local.begin(WEB)
    local.phase(Phase.PREPARE)
    marker = local.marker
    assert {key: marker[key] for key in ("run", "deployment", "action", "phase", "state", "reason")} == {
        "run": local.run,
        "deployment": local.deployment,
        "action": "UP",
        "phase": "prepare",
        "state": "done",
        "reason": "",
    }
    local.run_phases(Phase.PREPARE, Phase.BUILD, Phase.PULL)
    assert (local.marker["phase"], local.marker["state"]) == ("pull", "done")


def test_a_failed_phase_leaves_its_reason_in_the_marker(local: Machine) -> None:
    local.begin("services: [")
    local.phase(Phase.PREPARE)
    assert (local.marker["state"], local.marker["reason"]) == ("failed", "COMPOSE_INVALID")


@pytest.mark.parametrize("services", [WEB, "services: ["])
def test_only_a_phase_at_work_has_new_files(local: Machine, services: dict[str, Any] | str) -> None:
    prepare(local)
    local.begin(services)
    local.phase(Phase.PREPARE)
    assert [path for path in local.files.parents[1].rglob("*") if "new" in {path.parent.name, path.suffix[1:]}] == []


def test_nothing_changes_in_the_project_before_up(local: Machine, docker: Docker) -> None:
    local.deploy(WEB, {"page": "old"})
    before = contents(local.files), docker.containers(local.project)
    local.begin({"web": service("sleep", "2000")}, {"page": "new", "more": "x"})
    results = local.run_phases(Phase.PREPARE, Phase.BUILD, Phase.PULL)
    assert [(result.failed, result.changed) for result in results] == [(False, False)] * 3
    assert (contents(local.files), docker.containers(local.project)) == before
    assert contents(local.tree)["page"] == b"new"


def test_a_rivals_project_is_refused(local: Machine) -> None:
    local.begin(WEB)
    local.phase(Phase.PREPARE)
    before, marker = contents(local.tree), local.marker
    local.deployment, rival = str(uuid4()), local.deployment
    local.begin(WEB, {"more": "files"})
    result = local.phase(Phase.PREPARE, rivals=[str(uuid4()), rival])
    assert result.reason == "TASK_FAILED"
    assert result.detail == f"Project '{local.project}' on this host belongs to deployment {rival}."
    assert (contents(local.tree), local.marker) == (before, marker)


def test_the_project_of_a_deployment_that_is_no_more_is_taken_over(local: Machine) -> None:
    local.begin(WEB)
    local.phase(Phase.PREPARE)
    local.deployment = str(uuid4())
    local.begin(WEB)
    assert not local.phase(Phase.PREPARE, rivals=[str(uuid4())]).failed
    assert (local.state / "owner").read_text().split() == [local.deployment, "installation-of-the-tests"]


@pytest.mark.parametrize("action", ["deploy", "down"])
def test_the_project_of_another_installation_is_refused(local: Machine, docker: Docker, action: str) -> None:
    assert local.deploy(WEB, {"page": "old"}).succeeded
    before, marker = (contents(local.files), docker.containers(local.project)), local.marker
    other = {"installation": "another-installation"}
    result = (local.deploy(WEB, {"page": "new"}, **other) if action == "deploy" else local.down(**other)).last
    assert result.reason == "TASK_FAILED"
    assert result.detail == (
        f"Project '{local.project}' on this host belongs to another installation of daos (deployment "
        f"{local.deployment} of installation installation-of-the-tests). Take it down there; if that installation is "
        f"gone, delete {local.state / 'owner'} on the host."
    )
    assert ((contents(local.files), docker.containers(local.project)), local.marker) == (before, marker)

    (local.state / "owner").unlink()  # as the message says
    assert local.deploy(WEB, {"page": "new"}, **other).succeeded


def test_another_installation_may_have_a_project_that_was_taken_down(local: Machine) -> None:
    local.deploy(WEB)
    assert local.down().succeeded
    assert local.deploy(WEB, installation="another-installation").succeeded


def test_containers_of_another_directory_are_refused(local: Machine, docker: Docker, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "compose.yaml").write_text(
        "services: {web: {image: 'demo:1', command: sleep 1000, network_mode: none}}"
    )
    docker.run("compose", "--project-name", local.project, "--project-directory", str(elsewhere), "up", "--detach")
    before = docker.containers(local.project)
    play = local.deploy(WEB)
    assert (play.last.phase, play.last.reason) == (Phase.PREPARE, "TASK_FAILED")
    assert play.last.detail == f"Project '{local.project}' on this host belongs to the directory {elsewhere}."
    assert local.down().last.reason == "TASK_FAILED"
    assert local.recover().containers == []
    assert docker.containers(local.project) == before


def test_a_run_that_is_at_work_is_waited_for_and_named(local: Machine) -> None:
    local.begin(WEB)
    local.phase(Phase.PREPARE)
    holder, local.run = local.run, str(uuid4())
    with (local.state / "lock").open() as lock:  # it says who had it last
        fcntl.flock(lock, fcntl.LOCK_EX)
        result = local.phase(Phase.PREPARE, timeouts={"prepare": 1})
    assert result.reason == "TASK_FAILED"
    assert result.detail == f"Run {holder} is still at work on project '{local.project}' on this host."
    assert local.marker["run"] == holder


def test_the_model_of_the_package_before_is_not_taken_for_that_of_files_that_came_after(
    local: Machine, tmp_path: Path
) -> None:
    """A run that was cut off between the two: the package before ran nothing, and this one must not be taken for it."""
    failing = tmp_path / "bin/mv"
    failing.parent.mkdir()
    failing.write_text(f'#!/bin/sh\ncase "$*" in *new/resolved*) exit 1 ;; esac\nexec {shutil.which("mv")} "$@"\n')
    failing.chmod(0o755)
    local.begin({"web": service("sleep", "1000", profiles=["never"])})
    assert not local.phase(Phase.PREPARE).failed
    local.begin(WEB)
    assert local.phase(Phase.PREPARE, environment={"PATH": f"{failing.parent}:{os.environ['PATH']}"}).failed
    local.begin(WEB)
    last = local.play("deploy.yml").last
    assert (last.phase, last.failed) == (Phase.VERIFY, False)
    assert [found.state for found in last.containers] == [ContainerState.RUNNING]


def test_files_that_are_all_there_are_not_unpacked(local: Machine, tmp_path: Path) -> None:
    prepare(local, {"page": "x"})
    refusing = tmp_path / "bin/tar"
    refusing.parent.mkdir()
    refusing.write_text("#!/bin/sh\nexit 1\n")
    refusing.chmod(0o755)
    environment = {"PATH": f"{refusing.parent}:{os.environ['PATH']}"}
    assert local.deploy(WEB, {"page": "x"}).succeeded
    assert local.deploy(WEB, {"page": "x"}, environment=environment).succeeded
    local.begin(WEB, {"page": "y"})
    assert local.phase(Phase.PREPARE, environment=environment).failed


def test_a_full_disk_leaves_the_old_files(small_home: Machine) -> None:
    assert small_home.deploy(WEB, {"page": "old"}).succeeded
    before = contents(small_home.files)
    result = prepare(small_home, {"page": "new", "large": "x" * 2_000_000})
    assert result.reason == "DISK_FULL"
    assert "No space left on device" in result.detail
    assert re.match(r"The disk of the host is full, with [\d.]+ \w+ free: ", result.detail)
    assert contents(small_home.files) == before
    assert not small_home.tree.with_suffix(".new").exists()


def test_a_disk_without_a_byte_leaves_everything(small_home: Machine) -> None:
    assert small_home.deploy(WEB, {"page": "old"}).succeeded
    before, marker = contents(small_home.files), small_home.marker
    subprocess.run(["dd", "if=/dev/zero", f"of={small_home.home}/filler"], check=False, capture_output=True)
    result = prepare(small_home, {"page": "new"})
    assert result.reason == "DISK_FULL"
    assert "No space left on device" in result.detail
    assert contents(small_home.files) == before
    # What could not be unpacked is removed, and may leave room for the marker.
    assert small_home.marker == marker or small_home.marker["state"] == "failed"


@pytest.mark.parametrize("size", [100, 50_000])  # within the first header, and within a file
def test_a_broken_archive_leaves_the_old_files(local: Machine, size: int) -> None:
    assert local.deploy(WEB, {"page": "old"}).succeeded
    before = contents(local.files)
    local.begin(WEB, {"page": "new", "large": "x" * 100_000})
    header, _, archive = local.delivery.read_bytes().partition(b"\n")
    local.delivery.write_bytes(header + b"\n" + archive[:size])
    result = local.phase(Phase.PREPARE)
    assert result.reason == "TASK_FAILED"
    assert result.detail.startswith("The files could not be unpacked: ")
    assert contents(local.files) == before


def test_a_delivery_that_was_cut_off_between_two_files_is_delivered_again(local: Machine) -> None:
    """tar takes an archive that ends after a file for a whole one."""
    files = {f"file {number}": str(number) for number in range(9)}
    local.begin(WEB, files)
    delivery = Delivery.read(local.delivery.read_bytes())
    sent = b"\n" + delivery.stdin + f"size {len(delivery.archive)}\n\n".encode() + delivery.archive[: 7 * 512]
    script = ["/bin/sh", "-c", local.command(Phase.PREPARE)]
    ended = subprocess.run(
        script, input=sent, env={**os.environ, "HOME": str(local.home)}, capture_output=True, check=False
    )
    assert b"= ask archive" in ended.stdout
    assert local.deploy(WEB, files).succeeded
    assert contents(local.files).keys() == {"compose.yaml", ".env", *files}


@pytest.mark.parametrize(
    ("program", "reason", "words"),
    [
        (
            "docker",
            "DOCKER_UNAVAILABLE",
            "The program docker was not found on the host; install Docker with its Compose plugin, at least 2.26.",
        ),
        ("flock", "TASK_FAILED", "util-linux"),
        ("timeout", "TASK_FAILED", "coreutils"),
        ("tar", "TASK_FAILED", "tar"),
        ("sha256sum", "TASK_FAILED", "coreutils"),
    ],
)
def test_a_missing_program_is_named(local: Machine, tmp_path: Path, program: str, reason: str, words: str) -> None:
    local.begin(WEB)
    result = local.phase(Phase.PREPARE, environment={"PATH": str(programs_without(tmp_path, program))})
    assert result.reason == reason
    assert words in result.detail


def test_a_daemon_that_does_not_answer_is_unavailable(local: Machine) -> None:
    local.begin(WEB)
    result = local.phase(Phase.PREPARE, environment={"DOCKER_HOST": "unix:///nonexistent.sock"})
    assert result.reason == "DOCKER_UNAVAILABLE"
    assert "/nonexistent.sock" in result.detail


@pytest.mark.parametrize("rejected", ["compose", "--project-name"])
def test_a_docker_without_compose_is_unavailable(local: Machine, tmp_path: Path, rejected: str) -> None:
    fake = tmp_path / "bin/docker"
    fake.parent.mkdir()
    fake.write_text(
        f'#!/bin/sh\n[ "$1" != compose ] || {{ echo "unknown: {rejected}"; exit 125; }}\n'
        f'exec {shutil.which("docker")} "$@"\n'
    )
    fake.chmod(0o755)
    local.begin(WEB)
    environment = {"PATH": f"{fake.parent}:{os.environ['PATH']}", **compose_by_docker(tmp_path)}
    result = local.phase(Phase.PREPARE, environment=environment)
    assert result.reason == "DOCKER_UNAVAILABLE"
    assert result.detail == "The Compose plugin was not found on the host; install version 2.26 or newer."


def test_a_home_directory_is_found_without_its_variable(local: Machine) -> None:
    local.begin(WEB)
    local.home = Path.home()
    result = local.phase(Phase.PREPARE, environment={"HOME": ""})
    assert not result.failed, result.detail
    assert local.marker["run"] == local.run


def programs_without(directory: Path, missing: str) -> Path:
    """A directory of links to all programs in PATH but one."""
    links = directory / "programs"
    links.mkdir()
    for folder in os.environ["PATH"].split(":"):
        for program in Path(folder).glob("*"):
            if program.name != missing and not (links / program.name).exists():
                (links / program.name).symlink_to(program)
    return links


def test_compose_is_found_where_docker_looks_for_it(local: Machine, tmp_path: Path) -> None:
    plugin = tmp_path / "docker config/cli-plugins/docker-compose"
    plugin.parent.mkdir(parents=True)
    plugin.write_text('#!/bin/sh\necho "$0 was asked" >&2\nexit 1\n')
    plugin.chmod(0o755)
    local.begin(WEB)
    result = local.phase(Phase.PREPARE, environment={"DOCKER_CONFIG": str(tmp_path / "docker config")})
    assert f"{plugin} was asked" in result.words


@pytest.mark.parametrize("version", ["2.25.0", "v2.9.1-desktop.1"])
def test_a_compose_that_is_too_old_is_refused(local: Machine, tmp_path: Path, version: str) -> None:
    local.begin(WEB)
    result = local.phase(Phase.PREPARE, environment=compose_that(tmp_path, version=version))
    assert result.reason == "DOCKER_UNAVAILABLE"
    assert result.detail == f"Docker Compose {version} is too old: daos needs 2.26 or newer."


@pytest.mark.parametrize("version", ["v2.26.0", "2.100.0-rc1", "5.6.0", "dev"])
def test_a_compose_that_is_new_enough_is_accepted(local: Machine, tmp_path: Path, version: str) -> None:
    local.begin(WEB)
    result = local.phase(Phase.PREPARE, environment=compose_that(tmp_path, version=version))
    assert not result.failed, result.detail


def test_a_variable_without_a_value_is_a_warning(local: Machine) -> None:
    """In the second run as well, for which Compose need not read the files again."""
    web = {"web": service("sleep", "1000", environment={"PASSWORD": "${PASSWORD}", "OTHER": "${OTHER:-x}"})}
    for _ in range(2):
        play = local.deploy(web)
        assert play.succeeded, play.output
        assert [warning for result in play.phases for warning in result.warnings] == [
            'The "PASSWORD" variable is not set. Defaulting to a blank string. '
            "Give it a value in the variables of the deployment."
        ]


def test_a_profile_that_no_service_has_is_a_warning(local: Machine) -> None:
    local.values = {"COMPOSE_PROFILES": "extra,later"}
    play = local.deploy({**WEB, "job": service("true", profiles=["extra"])})
    assert play.succeeded, play.output
    assert [found.service for found in play.last.containers] == ["job", "web"]
    assert play[Phase.PREPARE].warnings == ["No service has the profile 'later' that COMPOSE_PROFILES names."]


def test_a_missing_file_that_compose_reads_is_named(local: Machine) -> None:
    local.deploy(WEB, {"page": "old"})
    before = contents(local.files)
    for files in (
        {"compose.yaml": "include: [part/compose.yaml]\n", "part/compose.yaml": part({"env_file": "missing.env"})},
        {"compose.yaml": "include: [part/compose.yaml]\n"},
        {"compose.yaml": part({"extends": {"file": "base.yaml", "service": "web"}})},
    ):
        local.begin("", {"page": "new", **files})
        *_, result = local.run_phases(Phase.PREPARE, Phase.BUILD, Phase.PULL, Phase.UP)
        assert (result.phase, result.reason) == (Phase.PREPARE, "COMPOSE_INVALID")
        assert any(name in result.detail for name in ("missing.env", "part/compose.yaml", "base.yaml"))
        assert contents(local.files) == before


def part(more: Mapping[str, Any]) -> str:
    """A Compose file of one service."""
    return json.dumps({"services": {"web": service("sleep", "1000", **more)}})


BESIDE = "which is not in the project's directory but among those of other projects."


@pytest.mark.parametrize(
    ("compose", "words"),
    [
        ({"services": {"web": service("true", volumes=["../files:/files"])}}, "mounts ../files"),
        ({"services": {"web": service("true", volumes=["../other/data:/files"])}}, "mounts ../other/data"),
        ({"services": {"web": service("true", volumes=["..:/files"])}}, "mounts .."),
        (
            {
                "services": {"web": service("true", volumes=["data:/files"])},
                "volumes": {
                    "data": {"driver_opts": {"type": "none", "o": "bind", "device": "${PWD}/../other"}},
                },
            },
            "mounts ../other",
        ),
        ({"services": {"web": service("true", build="../other")}}, "is built from ../other"),
        (
            {"services": {"web": service("true", build={"context": ".", "additional_contexts": {"a": "../other"}})}},
            "is built from ../other",
        ),
        (
            {
                "services": {"web": service("true", secrets=["key"])},
                "secrets": {"key": {"file": "../other/.env"}},
            },
            "uses the secret ../other/.env",
        ),
        (
            {
                "services": {"web": service("true", configs=["key"])},
                "configs": {"key": {"file": "../other/.env"}},
            },
            "uses the config ../other/.env",
        ),
    ],
)
def test_a_path_into_another_project_is_refused(local: Machine, compose: dict[str, Any], words: str) -> None:
    local.begin(json.dumps(compose))
    *_, result = local.run_phases(Phase.PREPARE, Phase.BUILD, Phase.PULL, Phase.UP)
    assert (result.phase, result.reason) == (Phase.PREPARE, "COMPOSE_INVALID")
    assert result.detail.startswith(f"Service 'web' {words}, {BESIDE}")
    assert not local.files.exists()


def test_daos_own_directories_are_refused_by_their_absolute_path(local: Machine) -> None:
    for path in (local.state.parent, local.files.parent / "other", local.home / ".daos"):
        local.begin({"web": service("true", volumes=[f"{path}:/files"])})
        result = local.phase(Phase.PREPARE)
        assert result.reason == "COMPOSE_INVALID"
        assert result.detail.startswith(f"Service 'web' mounts {path}, {BESIDE}")


def test_other_absolute_paths_and_paths_inside_the_project_are_allowed(local: Machine, tmp_path: Path) -> None:
    volumes = [f"{tmp_path}/mine:/a", "./data:/b", ".:/c", "./x/../data:/d", "${PWD}/data:/e"]
    local.begin({"web": service("true", volumes=volumes)})
    result = local.phase(Phase.PREPARE)
    assert not result.failed, result.detail
