"""Logins at registries: used for the pull, and gone afterwards, however the run ends."""

import base64
import json
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from db.encryption import Secret
from db.models import HostTransport, RunAction
from db.phase import Phase
from runner.spec import run as content
from runner.spec.run import Login, Project
from runner.ssh.target import Target
from tests.ansible.test_ending import HANGING, is_waiting_in_up
from tests.support.canaries import watching
from tests.support.machine import Machine, kill_with_children, service, wait_for
from tests.support.registry import Registry, serve_registry

USERNAME = "robot$me"
PASSWORD = "x'\"\\ $(id)`{{ü\n%s\\0101"


@pytest.fixture
def registry() -> Iterator[Registry]:
    with serve_registry(USERNAME, PASSWORD) as registry:
        yield registry


def logins(*given: tuple[str, str]) -> list[str]:
    """Logins (registry, password) as a delivery has them."""
    target = Target(uuid4(), "", HostTransport.LOCAL, None, 22, "root", None, None)
    project = Project(uuid4(), 1, RunAction.UP, uuid4(), uuid4(), "", "", target, "", {}, {})
    project.logins.extend(Login(registry, USERNAME, Secret(password)) for registry, password in given)
    return content.logins(project)


def image_at(registry: Registry) -> dict[str, Any]:
    return {"web": service("true") | {"image": f"{registry.address}/x/y:{uuid4()}"}}


def left(machine: Machine) -> list[Path]:
    """Configurations with logins that are still there."""
    return [*Path("/dev/shm").glob(f"daos.{machine.project}.*"), *machine.state.glob("login.*")]


def test_a_pull_has_the_login_and_nothing_keeps_it(machine: Machine, registry: Registry) -> None:
    machine.begin(image_at(registry), logins=logins((registry.address, PASSWORD)))
    with watching("0170\\0047", "(id)`") as watched:  # the password, as it travels and as it is
        play = machine.play("deploy.yml")
    assert (play.last.phase, play.last.reason) == (Phase.PULL, "IMAGE_PULL_FAILED")  # it is not there
    assert play.last.detail is not None
    assert "login" not in play.last.detail
    assert registry.pulled_by == {f"{USERNAME}:{PASSWORD}"}
    assert left(machine) == []
    assert watched == set()
    assert "WARNING" not in play.last.words


def test_a_login_that_is_refused_names_the_registry(local: Machine, registry: Registry) -> None:
    local.begin(image_at(registry), logins=logins((registry.address, "wrong")))
    play = local.play("deploy.yml")
    assert (play.last.phase, play.last.reason) == (Phase.PULL, "IMAGE_PULL_FAILED")
    assert play.last.detail.startswith(f"The login at registry {registry.address} failed: ")
    assert "401 Unauthorized" in play.last.detail
    assert "401 Unauthorized" in play.last.words
    assert left(local) == []


def test_busybox_logs_in(local: Machine, registry: Registry, busybox_path: str) -> None:
    local.begin(image_at(registry), logins=logins((registry.address, PASSWORD)))
    phases = (Phase.PREPARE, Phase.BUILD, Phase.PULL)
    local.run_phases(*phases, interpreter=("busybox", "sh"), environment={"PATH": busybox_path})
    assert registry.pulled_by == {f"{USERNAME}:{PASSWORD}"}
    assert left(local) == []


@pytest.mark.parametrize("policy", [{}, {"pull_policy": "missing"}, {"pull_policy": "never"}])
def test_images_that_are_there_need_no_login(local: Machine, registry: Registry, policy: dict[str, str]) -> None:
    local.begin({"web": service("sleep", "1000", **policy)}, logins=logins((registry.address, "wrong")))
    play = local.play("deploy.yml")
    assert play.succeeded, play.last.detail
    assert registry.asked == []


def test_a_build_has_the_login_too_behind_one_that_is_refused(local: Machine, registry: Registry) -> None:
    dockerfile = f"FROM {registry.address}/x/y:{uuid4()}"
    with serve_registry(USERNAME, PASSWORD) as other:
        given = logins((other.address, "wrong"), (registry.address, PASSWORD))
        local.begin({"web": {"build": "."}}, {"Dockerfile": dockerfile}, given)
        play = local.play("deploy.yml")
    assert (play.last.phase, play.last.reason) == (Phase.BUILD, "IMAGE_BUILD_FAILED")  # it is not there
    assert registry.pulled_by >= {f"{USERNAME}:{PASSWORD}"}
    assert left(local) == []


def test_a_build_goes_on_without_a_login_that_it_does_not_need(local: Machine, registry: Registry) -> None:
    web = {key: value for key, value in service("sleep", "1000").items() if key != "image"}
    given = logins((registry.address, "wrong"))
    local.begin({"web": web | {"build": "."}}, {"Dockerfile": "FROM demo:1"}, given)
    play = local.play("deploy.yml")
    assert play.succeeded, play.last.detail
    assert f"The login at registry {registry.address} failed: " in play[Phase.BUILD].words
    assert left(local) == []


def test_no_login_is_left_when_up_begins(local: Machine, registry: Registry) -> None:
    web = {key: value for key, value in HANGING["web"].items() if key != "image"}
    given = logins((registry.address, PASSWORD))
    local.begin(HANGING | {"web": web | {"build": "."}}, {"Dockerfile": "FROM demo:1"}, given)
    with local.running(Phase.PREPARE, Phase.BUILD, Phase.PULL, Phase.UP):
        wait_for(lambda: is_waiting_in_up(local))
        assert left(local) == []
    assert registry.asked[-1] == ("/v2/", f"{USERNAME}:{PASSWORD}")


def test_the_configuration_of_the_host_is_as_it_was_and_in_force(local: Machine, registry: Registry) -> None:
    """Its own login for this registry is passed over, its store never gets the run's, and its folders are there."""
    config = local.home / ".docker"
    (config / "contexts").mkdir(parents=True)
    other = {"auth": base64.b64encode(b"a:b").decode()}
    text = json.dumps({"auths": {"other.example": other}, "credsStore": "none", "credHelpers": {registry.address: "x"}})
    (config / "config.json").write_text(f"{text}\n\n")
    local.begin(image_at(registry), logins=logins((registry.address, PASSWORD)))
    fake = spying_docker(local)
    local.play("deploy.yml")
    assert registry.pulled_by == {f"{USERNAME}:{PASSWORD}"}
    assert (config / "config.json").read_text() == f"{text}\n\n"
    seen = json.loads((fake.parent / "seen.json").read_text())
    assert seen["auths"]["other.example"] == other
    assert seen["credsStore"] == "none"
    assert b"(id)" not in (fake.parent / "environment").read_bytes()
    assert (fake.parent / "seen").read_text().split() == ["drwx------", "config.json", "contexts"]
    assert left(local) == []


def spying_docker(machine: Machine) -> Path:
    """A docker that notes the configuration with which it was called for a pull."""
    fake = machine.directory / "bin" / "docker"
    fake.parent.mkdir()
    fake.write_text(
        f"""#!/bin/sh
case "$DOCKER_CONFIG $*" in
    */daos.*" login "*)
        cat /proc/$PPID/environ /proc/$$/environ >{fake.parent}/environment
        {shutil.which("docker")} "$@" || exit
        cp "$DOCKER_CONFIG/config.json" {fake.parent}/seen.json
        (ls -ld "$DOCKER_CONFIG" | cut -c1-10; ls "$DOCKER_CONFIG") >{fake.parent}/seen
        exit ;;
esac
exec {shutil.which("docker")} "$@"
"""
    )
    fake.chmod(0o755)
    machine.environment = {**machine.environment, "PATH": f"{fake.parent}:{os.environ['PATH']}"}
    return fake


@pytest.mark.parametrize("how", ["terminated", "killed"])
def test_a_run_that_is_cut_off_leaves_no_login(machine: Machine, registry: Registry, how: str) -> None:
    registry.hold()
    machine.begin(image_at(registry), logins=logins((registry.address, PASSWORD)))
    with machine.playing("deploy.yml") as ansible:
        wait_for(lambda: registry.pulled_by, 30)
        assert [path.stat().st_mode & 0o777 for path in left(machine) if path.is_dir()] == [0o700]
        if how == "terminated":
            ansible.terminate()
        else:
            kill_with_children(ansible.pid, keep="/bin/sh")
        wait_for(lambda: left(machine) == [])


def test_what_a_script_has_left_that_was_killed_goes_with_the_next(local: Machine, registry: Registry) -> None:
    registry.hold()
    local.begin(image_at(registry), logins=logins((registry.address, PASSWORD)))
    with local.playing("deploy.yml"):
        wait_for(lambda: registry.pulled_by, 30)
        for pid in local.processes():  # the watch too
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not local.processes())
    assert [path.is_dir() for path in left(local)] == [True, False]  # the second has the name of the first
    local.recover()
    assert left(local) == []


def test_a_directory_that_became_somebody_elses_is_left_alone(local: Machine) -> None:
    """Memory is empty after a restart, and others may take a name that they have seen before."""
    local.deploy({"web": service("true", scale=0)})
    theirs = local.directory / "theirs"
    theirs.mkdir()
    os.chown(theirs, 12345, 12345)
    link = local.directory / "link"
    link.symlink_to(local.directory / "home")
    for name, place in (("login.1", theirs), ("login.2", link)):
        (local.state / name).write_text(f"{place}\n")
    local.recover()
    assert left(local) == []
    assert theirs.exists()
    assert link.is_symlink()
