"""The phase Prepare: whose project it is, and files that change as a whole or not at all."""

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.ansible.machine import Machine, Result, compose_by_docker, service
from tests.support.docker import Docker

WEB = {"web": service("sleep", "1000")}


@pytest.fixture
def small_home(local: Machine) -> Iterator[Machine]:
    """A machine whose home directory holds one megabyte."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", local.home], check=True)
    yield local
    subprocess.run(["umount", "--lazy", local.home], check=True)


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def prepare(machine: Machine, files: dict[str, str] | None = None) -> Result:
    machine.begin(WEB, files)
    return machine.phase("prepare")


def test_the_marker_tells_the_run_and_how_far_it_got(local: Machine) -> None:
    local.begin(WEB)
    local.phase("prepare")
    marker = local.marker
    assert {key: marker[key] for key in ("run", "deployment", "action", "phase", "state", "reason")} == {
        "run": local.run,
        "deployment": local.deployment,
        "action": "UP",
        "phase": "prepare",
        "state": "done",
        "reason": "",
    }
    local.phase("pull")
    assert (local.marker["phase"], local.marker["state"]) == ("pull", "done")


def test_a_failed_phase_leaves_its_reason_in_the_marker(local: Machine) -> None:
    local.begin("services: [")
    local.phase("prepare")
    assert (local.marker["state"], local.marker["reason"]) == ("failed", "COMPOSE_INVALID")


@pytest.mark.parametrize("services", [WEB, "services: ["])
def test_only_a_phase_at_work_has_new_files(local: Machine, services: dict[str, Any] | str) -> None:
    prepare(local)
    local.begin(services)
    local.phase("prepare")
    assert [path for root in (local.files.parent, local.state) for path in root.rglob("*.new")] == []


@pytest.mark.parametrize("phase", ["pull", "up", "verify"])
def test_a_phase_of_an_older_run_is_refused(local: Machine, phase: str) -> None:
    local.begin(WEB)
    local.phase("prepare")
    result = local.phase(phase, run=str(uuid4()))
    assert result.reason == "TASK_FAILED"
    assert result.detail == f"Another run has begun since: {local.run}."
    assert local.marker["phase"] == "prepare"


def test_a_phase_needs_a_prepared_run(local: Machine) -> None:
    assert "has to begin with Prepare" in local.phase("up").detail


def test_a_rivals_project_is_refused(local: Machine) -> None:
    local.begin(WEB)
    local.phase("prepare")
    before, marker = contents(local.files), local.marker
    local.deployment, rival = str(uuid4()), local.deployment
    local.begin(WEB, {"more": "files"})
    result = local.phase("prepare", rivals=[str(uuid4()), rival])
    assert result.reason == "TASK_FAILED"
    assert result.detail == f"Project '{local.project}' on this host belongs to deployment {rival}."
    assert (contents(local.files), local.marker) == (before, marker)


def test_the_project_of_a_deployment_that_is_no_more_is_taken_over(local: Machine) -> None:
    local.begin(WEB)
    local.phase("prepare")
    local.deployment = str(uuid4())
    local.begin(WEB)
    assert not local.phase("prepare", rivals=[str(uuid4())]).failed
    assert (local.state / "owner").read_text().strip() == local.deployment


def test_containers_of_another_directory_are_refused(local: Machine, docker: Docker, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "compose.yaml").write_text(
        "services: {web: {image: 'demo:1', command: sleep 1000, network_mode: none}}"
    )
    docker.run("compose", "--project-name", local.project, "--project-directory", str(elsewhere), "up", "--detach")
    before = docker.containers(local.project)
    play = local.deploy(WEB)
    assert (play.last.phase, play.last.reason) == ("prepare", "TASK_FAILED")
    assert play.last.detail == f"Project '{local.project}' on this host belongs to the directory {elsewhere}."
    assert local.down().last.reason == "TASK_FAILED"
    assert local.settle().services == []
    assert docker.containers(local.project) == before


def test_a_run_that_is_at_work_is_waited_for_and_named(local: Machine) -> None:
    local.begin(WEB)
    local.phase("prepare")
    holder, local.run = local.run, str(uuid4())
    with (local.state / "lock").open() as lock:  # it says who had it last
        fcntl.flock(lock, fcntl.LOCK_EX)
        result = local.phase("prepare", timeouts={"prepare": 1})
    assert result.reason == "TASK_FAILED"
    assert result.detail == f"Run {holder} is still at work on project '{local.project}' on this host."
    assert local.marker["run"] == holder


def test_files_that_are_no_longer_in_the_package_go_and_others_stay(local: Machine) -> None:
    prepare(local, {"old/page": "1", "both": "1"})
    (local.files / "volume").mkdir()
    (local.files / "volume/rows").write_text("of a container")
    assert prepare(local, {"both": "2", "new page": "2"}).changed
    assert set(contents(local.files)) == {"compose.yaml", ".env", "both", "new page", "volume/rows"}
    assert (local.files / "both").read_text() == "2"


def test_an_edited_file_is_put_right(local: Machine) -> None:
    prepare(local, {"page": "1"})
    (local.files / "page").write_text("by hand")
    assert prepare(local, {"page": "1"}).changed
    assert (local.files / "page").read_text() == "1"


def test_the_images_of_the_package_before_are_not_taken_for_those_of_files_that_came_after(
    local: Machine, tmp_path: Path
) -> None:
    """A run that was cut off between the two: the package before ran nothing, and this one must not be taken for it."""
    failing = tmp_path / "bin/mv"
    failing.parent.mkdir()
    failing.write_text(f'#!/bin/sh\ncase "$*" in *images.new*) exit 1 ;; esac\nexec {shutil.which("mv")} "$@"\n')
    failing.chmod(0o755)
    local.begin({"web": service("sleep", "1000", profiles=["never"])})
    assert not local.phase("prepare").failed
    local.begin(WEB)
    assert local.phase("prepare", environment={"PATH": f"{failing.parent}:{os.environ['PATH']}"}).failed
    local.begin(WEB)
    *_, last = local.run_phases("prepare", "pull", "up", "verify")
    assert (last.phase, last.failed) == ("verify", False)
    assert [found["state"] for found in last.services] == ["running"]


def test_files_that_are_all_there_are_not_unpacked(local: Machine, tmp_path: Path) -> None:
    prepare(local, {"page": "x", "gone": "x"})
    refusing = tmp_path / "bin/tar"
    refusing.parent.mkdir()
    refusing.write_text("#!/bin/sh\nexit 1\n")
    refusing.chmod(0o755)
    environment = {"PATH": f"{refusing.parent}:{os.environ['PATH']}"}
    local.begin(WEB, {"page": "x"})
    assert not local.phase("prepare", environment=environment).failed
    assert {"page", "gone"} & contents(local.files).keys() == {"page"}
    local.begin(WEB, {"page": "y"})
    assert local.phase("prepare", environment=environment).failed


def test_a_file_replaces_the_empty_directory_that_docker_made_for_it(local: Machine) -> None:
    prepare(local)
    (local.files / "site.conf").mkdir()
    assert not prepare(local, {"site.conf": "x"}).failed
    assert (local.files / "site.conf").read_text() == "x"


def test_a_directory_with_files_is_not_replaced(local: Machine) -> None:
    prepare(local)
    (local.files / "site.conf").mkdir()
    (local.files / "site.conf/mine").write_text("x")
    result = prepare(local, {"site.conf": "x"})
    assert result.reason == "TASK_FAILED"
    assert "site.conf" in result.detail
    assert (local.files / "site.conf/mine").exists()


def test_a_file_may_become_a_directory_and_a_directory_a_file(local: Machine) -> None:
    prepare(local, {"a": "1", "b/c": "1"})
    assert not prepare(local, {"a/c": "2", "b": "2"}).failed
    assert (local.files / "a/c").read_text() == (local.files / "b").read_text() == "2"


def test_a_changed_mounted_file_takes_effect(local: Machine, docker: Docker) -> None:
    web = {"web": service("sh", "-c", "cat /page; sleep 1000", volumes=["./page:/page:ro"])}
    local.deploy(web, {"page": "old words\n"})
    play = local.deploy(web, {"page": "new words\n"})
    assert play.succeeded, play.output
    assert play["up"].changed
    (container,) = docker.containers(local.project)
    assert docker.run("logs", container) == "new words\n"
    assert not local.deploy(web, {"page": "new words\n"}).changed


def test_a_changed_mounted_file_takes_effect_after_a_failed_run_too(local: Machine, docker: Docker) -> None:
    web = {"web": service("sleep", "1000", volumes=["./page:/page:ro"])}
    local.deploy(web, {"page": "old"})
    before = docker.containers(local.project)
    local.begin(web, {"page": "new"})
    local.phase("prepare")
    play = local.deploy(web, {"page": "new"})
    assert play["prepare"].changed is False
    assert play["up"].changed
    assert docker.containers(local.project) != before


def test_a_full_disk_leaves_the_old_files(small_home: Machine) -> None:
    prepare(small_home, {"page": "old"})
    before = contents(small_home.files)
    result = prepare(small_home, {"page": "new", "large": "x" * 2_000_000})
    assert result.reason == "TASK_FAILED"
    assert "No space left on device" in result.detail
    assert contents(small_home.files) == before
    assert not small_home.files.with_suffix(".new").exists()


def test_a_disk_without_a_byte_leaves_everything(small_home: Machine) -> None:
    prepare(small_home, {"page": "old"})
    before, marker = contents(small_home.files), small_home.marker
    subprocess.run(["dd", "if=/dev/zero", f"of={small_home.home}/filler"], check=False, capture_output=True)
    result = prepare(small_home, {"page": "new"})
    assert result.reason == "TASK_FAILED"
    assert "No space left on device" in result.detail
    assert contents(small_home.files) == before
    # What could not be unpacked is removed, and may leave room for the marker.
    assert small_home.marker == marker or small_home.marker["state"] == "failed"


@pytest.mark.parametrize("size", [0, 100, 50_000])  # in the manifest, and in the archive
def test_a_delivery_that_was_cut_leaves_the_old_files(local: Machine, size: int) -> None:
    prepare(local, {"page": "old"})
    before = contents(local.files)
    local.begin(WEB, {"page": "new", "large": "x" * 100_000})
    local.delivery.write_bytes(local.delivery.read_bytes()[:size])
    result = local.phase("prepare")
    assert result.reason == "TASK_FAILED"
    assert result.detail.startswith("The files could not be unpacked: ")
    assert contents(local.files) == before


@pytest.mark.parametrize(
    ("program", "reason", "words"),
    [
        ("docker", "DOCKER_UNAVAILABLE", "Docker was not found on the host."),
        ("flock", "TASK_FAILED", "util-linux"),
        ("timeout", "TASK_FAILED", "coreutils"),
        ("tar", "TASK_FAILED", "tar"),
    ],
)
def test_a_missing_program_is_named(local: Machine, tmp_path: Path, program: str, reason: str, words: str) -> None:
    local.begin(WEB)
    result = local.phase("prepare", environment={"PATH": str(programs_without(tmp_path, program))})
    assert result.reason == reason
    assert words in result.detail


def test_a_daemon_that_does_not_answer_is_unavailable(local: Machine) -> None:
    local.begin(WEB)
    result = local.phase("prepare", environment={"DOCKER_HOST": "unix:///nonexistent.sock"})
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
    result = local.phase("prepare", environment=environment)
    assert result.reason == "DOCKER_UNAVAILABLE"
    assert result.detail == "Docker compose v2 was not found."


def test_a_home_directory_is_found_without_its_variable(local: Machine) -> None:
    local.begin(WEB)
    local.home = Path.home()
    result = local.phase("prepare", environment={"HOME": ""})
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
    plugin.write_text('#!/bin/sh\necho "$0 was asked"\nexit 1\n')
    plugin.chmod(0o755)
    local.begin(WEB)
    result = local.phase("prepare", environment={"DOCKER_CONFIG": str(tmp_path / "docker config")})
    assert f"{plugin} was asked" in result.words


def test_files_of_any_name_are_delivered_changed_and_removed(local: Machine) -> None:
    names = [
        "[id].ts",
        "Load (all).json",
        "naïve ☃.txt",
        "-rf",
        "a:b",
        "$x",
        "$(id)",
        "'q'",
        '"q"',
        "*",
        "~/x",
        "d/ a ",
    ]
    names += ["{}", "= x", "#x", "%s", "|", "é", "e\u0301", "a\u00a0b", "\u202eb", "☃" * 85, "--help/-x"]
    web = {"web": service("sleep", "1000")}
    for files in ({name: name for name in names}, {name: f"{name} 2" for name in names[::2]}):
        play = local.deploy(web, files)
        assert play.succeeded, play.output
        delivered = contents(local.files)
        assert {path: delivered[path].decode() for path in delivered.keys() - {"compose.yaml", ".env"}} == files
