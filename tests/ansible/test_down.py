"""down.yml: nothing of the project is left, whatever state its files are in."""

import json
import shutil

import pytest

from db.phase import Phase
from tests.support.docker import PROJECT_LABEL, Docker
from tests.support.machine import Machine, service

WEB = {"web": service("sleep", "1000")}


def test_down_leaves_no_container_and_no_network(machine: Machine, docker: Docker) -> None:
    del (web := service("sleep", "1000"))["network_mode"]
    machine.deploy({"web": web})
    play = machine.down()
    assert play.succeeded, play.output
    assert play.changed
    assert play.last.containers == []
    assert docker.containers(machine.project) == []
    assert docker.run("network", "ls", "--quiet", "--filter", f"name={machine.project}") == ""
    assert (machine.marker["action"], machine.marker["state"]) == ("DOWN", "done")


def test_down_keeps_files_and_volumes(local: Machine, docker: Docker) -> None:
    compose = {"services": {"web": service("sleep", "1000", volumes=["rows:/rows"])}, "volumes": {"rows": {}}}
    local.deploy(json.dumps(compose))
    assert local.down().succeeded
    assert (local.files / "compose.yaml").exists()
    assert docker.run("volume", "ls", "--quiet", "--filter", f"name={local.project}_rows") != ""


def test_down_of_what_is_not_there_changes_nothing(local: Machine) -> None:
    play = local.down()
    assert play.succeeded, play.output
    assert not play.changed


def test_down_without_the_projects_directory(local: Machine, docker: Docker) -> None:
    local.deploy(WEB)
    shutil.rmtree(local.files)
    assert local.down().succeeded
    assert docker.containers(local.project) == []


def test_down_without_the_model_goes_by_labels(local: Machine, docker: Docker) -> None:
    local.deploy(WEB)
    shutil.rmtree(local.home / ".daos/trees")
    (local.state / "model.json").unlink()
    play = local.down()
    assert play.succeeded, play.last.detail
    assert play.changed
    assert docker.containers(local.project) == []


@pytest.mark.parametrize("model", ["{", '{"services": {"other": {"image": "demo:1"}}}'])
def test_down_with_a_model_that_says_nothing(local: Machine, docker: Docker, model: str) -> None:
    local.deploy(WEB)
    (local.files / "compose.yaml").write_text(model)
    (local.state / "model.json").write_text(model)
    assert local.down().succeeded
    assert docker.containers(local.project) == []


def test_containers_that_compose_does_not_manage_are_ignored(local: Machine, docker: Docker) -> None:
    """A service may make containers with its project's label, which Compose leaves alone."""
    local.deploy(WEB)
    labels = [f"{PROJECT_LABEL}={local.project}", "com.docker.compose.service=web"]
    labelled = [f"--label={label}" for label in labels]
    made = docker.run("run", "--detach", "--network=none", *labelled, "demo:1", "sleep", "1000")
    up = local.deploy({"web": service("sleep", "2000")})
    assert up.succeeded, up.last.detail
    assert len(up.last.containers) == 1
    down = local.down()
    assert down.succeeded, down.last.detail
    assert down.last.containers == []
    assert docker.containers(local.project) == [made[:12]]
    again = local.down()
    assert again.succeeded
    assert not again.changed


def test_down_sets_the_project_free(local: Machine) -> None:
    local.deploy(WEB)
    rival = local.deployment
    local.down()
    local.deployment = "22222222-2222-4222-8222-222222222222"
    assert local.deploy(WEB, rivals=[rival]).succeeded


def test_down_of_a_rivals_project_is_refused(local: Machine, docker: Docker) -> None:
    local.deploy(WEB)
    local.deployment, rival = "22222222-2222-4222-8222-222222222222", local.deployment
    play = local.down(rivals=[rival])
    assert play.last.reason == "TASK_FAILED"
    assert rival in play.last.detail
    assert len(docker.containers(local.project)) == 1


def test_down_reports_a_daemon_that_does_not_answer(local: Machine) -> None:
    result = local.phase(Phase.DOWN, environment={"DOCKER_HOST": "unix:///nonexistent.sock"})
    assert result.reason == "DOCKER_UNAVAILABLE"
