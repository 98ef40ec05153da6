"""Machines to play on: this one by Ansible's local connection, and the same over a real sshd."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.docker import Docker
from tests.support.machine import NOBODY, Machine
from tests.support.sshd import SshServer


@pytest.fixture
def local(docker: Docker, project_name: str, tmp_path: Path) -> Machine:
    """This machine, with a home directory of the test's own, and without Ansible where nothing depends on it."""
    home = tmp_path / "home"
    home.mkdir()
    return Machine(project_name, home, tmp_path, {"ansible_connection": "local"}, {"HOME": str(home)}, by_hand=True)


@pytest.fixture
def remote(docker: Docker, project_name: str, tmp_path: Path, sshd: SshServer) -> Iterator[Machine]:
    """This machine over ssh: the home directory is the real one."""
    known_hosts = tmp_path / "known_hosts"
    known_hosts.write_text(f"[{sshd.address}]:{sshd.port} {sshd.host_key}\n")
    with tempfile.TemporaryDirectory(prefix="daos") as control:  # the path of a socket may have 107 characters
        variables = {
            "ansible_connection": "ssh",
            "ansible_host": sshd.address,
            "ansible_port": sshd.port,
            "ansible_user": sshd.user,
            "ansible_ssh_private_key_file": str(sshd.key_path),
            "ansible_control_path": f"{control}/%%C",
            "ansible_ssh_common_args": f"-F none -o IdentitiesOnly=yes -o UserKnownHostsFile={known_hosts}",
        }
        machine = Machine(project_name, Path.home(), tmp_path, variables)
        yield machine
        shutil.rmtree(machine.files.with_suffix(".new"), ignore_errors=True)


@pytest.fixture(params=["local", "remote"])
def machine(request: pytest.FixtureRequest) -> Machine:
    """This machine, by Ansible and each of its two connections."""
    chosen: Machine = request.getfixturevalue(request.param)
    chosen.by_hand = False
    return chosen


@pytest.fixture
def small_home(local: Machine) -> Iterator[Machine]:
    """A machine whose home directory holds one megabyte."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", local.home], check=True)
    yield local
    subprocess.run(["umount", "--lazy", local.home], check=True)


@pytest.fixture
def nobodys_home(local: Machine) -> Iterator[Machine]:
    """The machine with a home directory of the user nobody."""
    if os.geteuid() != 0:
        pytest.skip("only root can become nobody")
    if shutil.which("setpriv") is None:
        pytest.skip("there is no setpriv")
    with tempfile.TemporaryDirectory(prefix="daos") as home:
        os.chown(home, NOBODY, NOBODY)
        local.home, local.environment = Path(home), {}
        yield local


@pytest.fixture
def busybox_path(tmp_path: Path) -> str:
    """A PATH that leads to docker, flock and, for everything else, busybox: a small Linux distribution."""
    if shutil.which("busybox") is None:
        pytest.skip("there is no busybox")
    links = tmp_path / "bin"
    links.mkdir()
    for applet in subprocess.run(["busybox", "--list"], check=True, capture_output=True, text=True).stdout.split():
        (links / applet).symlink_to(str(shutil.which("busybox")))
    for program in ("docker", "flock"):  # Debian builds its busybox without flock
        (links / program).unlink(missing_ok=True)
        (links / program).symlink_to(str(shutil.which(program)))
    return str(links)
