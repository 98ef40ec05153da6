"""Whoever stops listening ends the work on the host: nothing goes on unseen."""

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from db.phase import Phase
from runner.play.event import Event, Kind
from tests.support.machine import UNREACHABLE, Machine, compose_by_docker, kill_with_children, service, wait_for

# Up waits for a dependency that will not get healthy.
HANGING = {
    "web": service("sleep", "1000", depends_on={"db": {"condition": "service_healthy"}}),
    "db": service("sleep", "1000", healthcheck={"test": "false", "interval": "1s", "retries": 1000}),
}


@pytest.fixture
def silent_registry() -> Iterator[str]:
    """The address of a registry that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def is_waiting_in_up(machine: Machine) -> bool:
    listing = ["docker", "ps", "--quiet", "--filter", f"label=com.docker.compose.project={machine.project}"]
    running = subprocess.run(listing, check=True, capture_output=True).stdout
    return machine.marker.get("phase") == "up" and bool(running)


def is_pulling(machine: Machine) -> bool:
    commands = machine.processes().values()
    return machine.marker.get("phase") == "pull" and any(command.endswith(" pull -- web ") for command in commands)


def ssh_clients(machine: Machine) -> list[int]:
    """The processes on the near side: clients and the master, which all name the control socket."""
    control = str(machine.variables["ansible_control_path"]).removesuffix("%%C")
    processes = Path("/proc").glob("[0-9]*/cmdline")
    return [int(process.parent.name) for process in processes if control.encode() in process.read_bytes()]


def kill_ssh_clients(machine: Machine) -> None:
    for pid in ssh_clients(machine):
        with contextlib.suppress(ProcessLookupError):  # clients end with their master
            os.kill(pid, signal.SIGKILL)


def assert_nothing_is_left(machine: Machine) -> None:
    wait_for(lambda: not machine.processes(), seconds=4)
    subprocess.run(["flock", "--nonblock", machine.state / "lock", "true"], check=True)


def test_a_killed_ssh_connection_ends_up(remote: Machine) -> None:
    remote.begin(HANGING)
    with remote.playing("deploy.yml") as ansible:
        wait_for(lambda: is_waiting_in_up(remote))
        kill_ssh_clients(remote)
        assert_nothing_is_left(remote)
        output, _ = ansible.communicate(timeout=60)
    assert UNREACHABLE.search(output)
    assert (remote.marker["phase"], remote.marker["state"]) == ("up", "running")


def test_a_killed_ansible_ends_up_over_a_connection_that_stays(remote: Machine) -> None:
    remote.begin(HANGING)
    with remote.playing("deploy.yml") as ansible:
        wait_for(lambda: is_waiting_in_up(remote))
        kill_with_children(ansible.pid)
        assert_nothing_is_left(remote)
    assert ssh_clients(remote) != []


def test_a_killed_ssh_connection_ends_a_pull(remote: Machine, silent_registry: str) -> None:
    remote.begin({"web": service("true") | {"image": f"{silent_registry}/x:1"}})
    with remote.playing("deploy.yml"):
        wait_for(lambda: is_pulling(remote))
        kill_ssh_clients(remote)
        assert_nothing_is_left(remote)


def test_a_killed_local_ansible_ends_up(local: Machine) -> None:
    local.begin(HANGING)
    with local.playing("deploy.yml") as ansible:
        wait_for(lambda: is_waiting_in_up(local))
        kill_with_children(ansible.pid, keep="/bin/sh")
        assert_nothing_is_left(local)


def test_a_terminated_ansible_ends_up(machine: Machine) -> None:
    machine.begin(HANGING)
    with machine.playing("deploy.yml") as ansible:
        wait_for(lambda: is_waiting_in_up(machine))
        ansible.terminate()
        assert_nothing_is_left(machine)


def test_a_killed_script_takes_its_work_along(local: Machine) -> None:
    local.begin(HANGING)
    with local.playing("deploy.yml"):
        wait_for(lambda: is_waiting_in_up(local))
        os.kill(int(local.marker["pid"]), signal.SIGKILL)
        assert_nothing_is_left(local)


def test_work_that_ignores_a_polite_request_is_killed(local: Machine, tmp_path: Path) -> None:
    stubborn = tmp_path / "bin/docker"
    stubborn.parent.mkdir()
    stubborn.write_text("#!/bin/sh\n[ \"$1\" = compose ] || exit 0\ntrap '' TERM\nwhile :; do sleep 1; done\n")
    stubborn.chmod(0o755)
    path = f"{stubborn.parent}:{os.environ['PATH']}"
    local.environment = {**local.environment, "PATH": path, **compose_by_docker(tmp_path)}
    local.begin(HANGING)
    with local.playing("deploy.yml") as ansible:
        wait_for(lambda: any(str(stubborn) in command for command in local.processes().values()))
        kill_with_children(ansible.pid, keep="/bin/sh")
        assert_nothing_is_left(local)


def test_the_end_of_one_run_does_not_end_the_next_that_waits_for_it(local: Machine) -> None:
    slow = HANGING["db"] | {
        "init": False,
        "stop_grace_period": "3s",
    }  # without an init, sleep does not hear of the stop
    local.begin(HANGING | {"db": slow})
    with local.playing("deploy.yml") as ansible:
        wait_for(lambda: is_waiting_in_up(local))
        local.run = "another"
        events: list[Event] = []
        with local.running(Phase.DOWN, events=events) as down:
            wait_for(lambda: events)
            assert events == [Event(Kind.PHASE, Phase.DOWN)]
            kill_with_children(ansible.pid, keep="/bin/sh")
            assert not down.result(timeout=30)[0].failed


def test_a_pull_that_takes_too_long_is_a_timeout(local: Machine, silent_registry: str) -> None:
    play = local.deploy({"web": service("true") | {"image": f"{silent_registry}/x:1"}}, timeouts={"pull": 1})
    assert (play.last.phase, play.last.reason) == (Phase.PULL, "TIMEOUT")
    assert play.last.detail == "Pull did not finish within 1 s."
    assert local.processes() == {}


def test_a_command_that_nobody_listens_to_any_more_has_not_failed(local: Machine, tmp_path: Path) -> None:
    """It cannot get rid of its words, and ends with a status that says nothing of the project."""
    local.begin({"web": service("true")})
    plugin = tmp_path / "cli-plugins" / "docker-compose"
    plugin.parent.mkdir()
    plugin.write_text(
        f"""#!/bin/sh
case " $* " in
    *" version "*) echo 2.26.1 ;;
    *" config "*) echo '{{"services": {{"web": {{"image": "demo:1"}}}}}}' ;;
    *" up "*)
        : >{tmp_path}/begun
        until [ -e {tmp_path}/alone ]; do sleep 0.02; done
        echo words || exit 120
        sleep 0.1
        echo words || exit 120 ;;
esac
"""
    )
    plugin.chmod(0o755)
    local.environment = {**local.environment, "DOCKER_CONFIG": str(tmp_path)}
    with local.playing("deploy.yml") as ansible:
        wait_for((tmp_path / "begun").exists)
        kill_with_children(ansible.pid, keep="/bin/sh")
        (tmp_path / "alone").touch()
    assert_nothing_is_left(local)
    assert (local.marker["phase"], local.marker["state"]) == ("up", "running")
