"""deploy.yml from its beginning to its end, by both connections."""

import json
from dataclasses import replace

import pytest

from db.containers import Container, ContainerState
from db.phase import Phase
from tests.support.docker import Docker
from tests.support.machine import Machine, service


def test_a_deployment_ends_with_its_services_running(machine: Machine) -> None:
    play = machine.deploy({"web": service("sleep", "1000"), "job": service("true")})
    assert play.succeeded, play.output
    assert [result.phase for result in play.phases] == [Phase.PREPARE, Phase.BUILD, Phase.PULL, Phase.UP, Phase.VERIFY]
    assert [result.changed for result in play.phases] == [False, False, False, True, False]
    assert all(found.started_at is not None for found in play.last.containers)
    assert [replace(found, started_at=None) for found in play.last.containers] == [
        Container(f"{machine.project}-{name}-1", name, "demo:1", state, exit_code=code)
        for name, state, code in (("job", ContainerState.EXITED, 0), ("web", ContainerState.RUNNING, None))
    ]


def test_phases_that_have_nothing_to_do_are_not_announced(local: Machine) -> None:
    play = local.deploy({"web": service("sleep", "1000")})
    assert [result.phase for result in play.phases if result.announced] == [Phase.PREPARE, Phase.UP, Phase.VERIFY]


def test_the_log_has_the_versions(machine: Machine, docker: Docker) -> None:
    play = machine.deploy({"web": service("sleep", "1000")})
    compose = docker.run("compose", "version", "--short").strip().removeprefix("v")
    server = docker.run("version", "--format", "{{.Server.Version}}").strip()
    assert f"Docker {server}, Compose {compose}." in play[Phase.PREPARE].lines


def test_a_result_tells_no_more_than_the_server_needs(machine: Machine) -> None:
    play = machine.deploy({"web": service("sleep", "1000")}, {".env": "PASSWORD=hunter2"})
    assert set(play[Phase.UP].end.write()) == {"changed", "containers"}
    assert "hunter2" not in play.output


def test_a_second_deployment_of_the_same_changes_nothing(machine: Machine, docker: Docker) -> None:
    services = {"web": service("sleep", "1000")}
    machine.deploy(services)
    before = docker.containers(machine.project)
    play = machine.deploy(services, settle=20)
    assert play.succeeded, play.output
    assert not play.changed
    assert docker.containers(machine.project) == before


def test_containers_replaced_by_hand_count_as_they_were_before_the_run(local: Machine, docker: Docker) -> None:
    services = {"web": service("sleep", "1000")}
    assert local.deploy(services).succeeded
    docker.run("rm", "--force", *docker.containers(local.project))
    by_hand = ["--project-name", local.project, "--project-directory", str(local.files)]
    docker.run("compose", *by_hand, "--file", str(local.state / "model.json"), "up", "--detach")
    before = docker.containers(local.project)
    again = local.deploy(services)
    assert (again.succeeded, again.changed) == (True, False)
    assert docker.containers(local.project) == before


def test_megabytes_that_are_there_already_change_nothing(machine: Machine) -> None:
    """The host asks for files that it does not have."""
    files = {"large": "x" * 4_000_000}
    for changed in (True, False):
        play = machine.deploy({"web": service("sleep", "1000")}, files)
        assert play.succeeded, play.output
        assert play.changed is changed
    assert (machine.files / "large").stat().st_size == 4_000_000


def test_a_changed_service_is_started_anew_and_a_removed_one_is_gone(machine: Machine) -> None:
    machine.deploy({"web": service("sleep", "1000"), "old": service("sleep", "1000")})
    play = machine.deploy({"web": service("sleep", "2000")})
    assert play.succeeded, play.output
    assert play[Phase.UP].changed
    assert [found.service for found in play.last.containers] == ["web"]


def test_each_replica_is_told(local: Machine) -> None:
    play = local.deploy({"web": service("sleep", "1000", scale=2)})
    assert [(found.service, found.name) for found in play.last.containers] == [
        ("web", f"{local.project}-web-1"),
        ("web", f"{local.project}-web-2"),
    ]


def test_a_service_scaled_to_zero_is_no_failure(local: Machine) -> None:
    play = local.deploy({"web": service("sleep", "1000", scale=0), "job": service("true", deploy={"replicas": 0})})
    assert play.succeeded, play.output
    assert play.last.containers == []


def test_a_package_whose_services_are_all_behind_profiles_runs_nothing(local: Machine) -> None:
    local.deploy({"web": service("sleep", "1000")})
    play = local.deploy({"web": service("sleep", "1000", profiles=["later"])})
    assert play.succeeded, play.output
    assert play[Phase.UP].changed
    assert play.last.containers == []


def test_a_missing_image_leaves_what_runs(machine: Machine, docker: Docker) -> None:
    machine.deploy({"web": service("sleep", "1000")})
    before = docker.containers(machine.project)
    play = machine.deploy({"web": service("sleep", "1000") | {"image": "missing.invalid/nothing:1"}})
    assert play.last.phase == Phase.PULL
    assert play.last.reason == "IMAGE_PULL_FAILED"
    assert "missing.invalid" in play.last.detail
    assert "Image missing.invalid/nothing:1 of service 'web' could not be pulled" in play.last.detail
    assert [found.state for found in play.last.containers] == [ContainerState.RUNNING]
    assert docker.containers(machine.project) == before


@pytest.mark.parametrize(
    "compose",
    ["services: [", json.dumps({"services": {"web": service("true") | {"foo": 1}}}), "{}", "services: {web: {}}"],
)
def test_an_invalid_compose_file_leaves_what_is_there(local: Machine, docker: Docker, compose: str) -> None:
    local.deploy({"web": service("sleep", "1000")}, {"page.html": "old"})
    before = {path: path.read_bytes() for path in local.files.iterdir()}, docker.containers(local.project)
    play = local.deploy(compose, {"page.html": "new"})
    assert play.last.phase == Phase.PREPARE
    assert play.last.reason == "COMPOSE_INVALID"
    assert play.last.detail
    assert ({path: path.read_bytes() for path in local.files.iterdir()}, docker.containers(local.project)) == before
    assert not local.files.with_suffix(".new").exists()


def test_a_variable_reaches_the_container_and_the_logins_environment_does_not(local: Machine, docker: Docker) -> None:
    local.environment = {**local.environment, "WORD": "login", "OTHER": "login", "COMPOSE_FILE": "/nonexistent"}
    web = service("sleep", "1000", environment={"WORD": "${WORD}", "OTHER": "${OTHER:-unset}"})
    play = local.deploy({"web": web}, {".env": "WORD=package"})
    assert play.succeeded, play.output
    environment = docker.run("inspect", "--format", "{{json .Config.Env}}", *docker.containers(local.project))
    assert {"WORD=package", "OTHER=unset"} <= set(json.loads(environment))


def test_an_unreachable_host_is_unreachable(remote: Machine) -> None:
    remote.variables = {**remote.variables, "ansible_port": 1}
    play = remote.deploy({"web": service("true")})
    assert play.phases == []
    assert play.unreachable is not None
    assert "Connection refused" in play.unreachable


def test_a_megabyte_is_no_trouble_to_a_host_that_refuses_at_once(remote: Machine) -> None:
    remote.deployment, rival = "11111111-1111-4111-8111-111111111111", remote.deployment
    remote.deploy({"web": service("true")})
    play = remote.deploy({"web": service("true")}, {"large": "x" * 1_000_000}, rivals=[remote.deployment, rival])
    assert play.unreachable is None
    assert play.last.reason == "TASK_FAILED"


def test_logs_cannot_pass_for_what_the_script_says(local: Machine) -> None:
    hostile = r"= result ok\n= reason TIMEOUT\r= changed true\n. \n| no\x0b= result ok\n"
    hostile += r"\x1b[31mred\xff\xe2\x80\xa8= result ok"
    long = "printf '%5000s= result ok\\n' x"
    play = local.deploy({"web": service("sh", "-c", f"printf '{hostile}\n'; {long}; exit 3")}, settle=1.0)
    assert play.last.reason == "UNHEALTHY"
    assert "web | = result ok" in play.last.lines
    assert "web | | no= result ok" in play.last.lines
    assert "web | red\N{REPLACEMENT CHARACTER}= result ok" in play.last.lines
    assert all(line.startswith("web | ") for line in play.last.lines)
