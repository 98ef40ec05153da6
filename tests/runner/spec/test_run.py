"""What is played: the inventory and the delivery."""

import hashlib
import io
import json
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from db.encryption import Secret
from db.models import HostTransport
from runner.host.delivery import Delivery
from runner.spec.run import Login, Paths, ProjectFile, Timeouts, delivery, dotenv, inventory, logins
from tests.runner.projects import PROJECT, TARGET

PATHS = Paths(delivery=Path("/run/a/delivery"), known_hosts=Path("/run/a/known_hosts"), control=Path("/run/a"))
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"
TEMPLATE = "{{ lookup('pipe', 'id') }}"


def variables_of(**target: Any) -> dict[str, Any]:
    project = replace(PROJECT, target=replace(TARGET, **target))
    hosts: dict[str, dict[str, Any]] = inventory(project, PATHS, Timeouts(), 2.0)["all"]["hosts"]
    assert list(hosts) == [str(PROJECT.deployment_id)]
    return hosts[str(PROJECT.deployment_id)]


def test_the_inventory_marks_everything_a_user_wrote_as_unsafe() -> None:
    project = replace(
        PROJECT,
        name=TEMPLATE,
        target=replace(TARGET, name=TEMPLATE, address=TEMPLATE, user=TEMPLATE, ssh_key_path=Path(f"/{TEMPLATE}")),
    )
    marked = json.dumps({"__ansible_unsafe": TEMPLATE})
    text = json.dumps(inventory(project, PATHS, Timeouts(), 2.0))
    assert TEMPLATE in json.dumps(text)
    left = text.replace(marked, "").replace(json.dumps({"__ansible_unsafe": f"/{TEMPLATE}"}), "")
    assert "lookup" not in left


def test_the_host_learns_which_installation_of_daos_this_is() -> None:
    assert variables_of()["daos"]["installation"] == str(PROJECT.installation)


def test_host_keys_are_checked_against_the_hosts_own_file_and_nothing_else() -> None:
    arguments = variables_of()["ansible_ssh_common_args"]["__ansible_unsafe"]
    assert "StrictHostKeyChecking=accept-new" in arguments
    assert "UserKnownHostsFile=/run/a/known_hosts" in arguments
    assert "GlobalKnownHostsFile=none" in arguments
    assert f"HostKeyAlias={TARGET.id}" in arguments
    assert "-F none" in arguments


@pytest.mark.parametrize("marker", ["", "@cert-authority "])
def test_only_a_host_of_which_nothing_is_known_shows_a_key_that_is_accepted(marker: str) -> None:
    # "accept-new" would take a plain key beside an authority.
    known = variables_of(known_hosts=f"{marker}* {KEY}\n")["ansible_ssh_common_args"]["__ansible_unsafe"]
    assert "StrictHostKeyChecking=yes" in known


def test_a_certificate_is_asked_to_be_for_the_address() -> None:
    signed = variables_of(address="Web.example", known_hosts=f"@cert-authority * {KEY}\n")
    assert "HostKeyAlias=web.example " in signed["ansible_ssh_common_args"]["__ansible_unsafe"]


def test_the_control_path_is_the_runs_own_and_short_enough_for_a_socket() -> None:
    path = variables_of()["ansible_control_path"]
    assert path.startswith("/run/a/")


def test_a_given_key_is_the_only_one_offered() -> None:
    variables = variables_of(ssh_key_path=Path("/keys/one"))
    assert variables["ansible_ssh_private_key_file"] == {"__ansible_unsafe": "/keys/one"}
    assert "IdentitiesOnly=yes" in variables["ansible_ssh_common_args"]["__ansible_unsafe"]


def test_a_stored_key_is_where_ssh_finds_it_and_is_the_only_one() -> None:
    project = replace(PROJECT, target=replace(TARGET, ssh_key=Secret("hunter2hunter2")))
    paths = replace(PATHS, identity=Path("/proc/1/fd/3"))
    text = json.dumps(inventory(project, paths, Timeouts(), 2.0))
    [variables] = json.loads(text)["all"]["hosts"].values()
    assert variables["ansible_ssh_private_key_file"] == {"__ansible_unsafe": "/proc/1/fd/3"}
    assert "IdentitiesOnly=yes" in variables["ansible_ssh_common_args"]["__ansible_unsafe"]
    assert "hunter2" not in text


def test_a_local_host_needs_no_ssh() -> None:
    variables = variables_of(transport=HostTransport.LOCAL, address=None)
    assert variables["ansible_connection"] == "local"
    assert not [name for name in variables if name.startswith("ansible_ssh")]


def test_the_inventory_holds_no_secret() -> None:
    login = Login("r.example", "me", Secret("hunter2hunter2"))
    project = replace(PROJECT, variables={"PASSWORD": Secret("hunter2hunter2")}, logins=[login])
    assert "hunter2" not in json.dumps(inventory(project, PATHS, Timeouts(), 2.0))


def test_the_delivery_has_the_files_and_keeps_variables_from_others() -> None:
    login = Login("r.example", "me", Secret("hunter2"))
    files = {
        "conf/site.conf": ProjectFile("ü\n".encode()),
        "run": ProjectFile(b"\0\xff", mode=0o755),
    }
    project = replace(PROJECT, files=files, variables={"A": Secret("1")}, logins=[login])
    delivered = Delivery.read(delivery(project))
    with tarfile.open(fileobj=io.BytesIO(delivered.archive)) as tar:
        modes = {entry.name: oct(entry.mode) for entry in tar}
        contents = {entry.name: file.read() for entry in tar if (file := tar.extractfile(entry))}
    assert {path: contents[f"./{path}"] for path in files} == {path: file.data for path, file in files.items()}
    assert contents["./.env"] == b"A='1'\n"
    assert modes == {"./.env": "0o600", "./compose.yaml": "0o644", "./conf/site.conf": "0o644", "./run": "0o755"}
    assert delivered.values == {"A": hashlib.sha256(b"1").hexdigest()}
    assert delivered.logins == logins(project)


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("plain", "A='plain'\n"),
        ("$HOME `id`", "A='$HOME `id`'\n"),
        ("it's", 'A="it\'s"\n'),
        ("trailing\\", 'A="trailing\\\\"\n'),
        ("both ' and \" and $X", 'A="both \' and \\" and \\$X"\n'),
    ],
)
def test_a_variable_is_quoted_as_compose_reads_it(value: str, written: str) -> None:
    assert dotenv({"A": Secret(value)}) == written


def test_logins_are_lines_that_a_shell_reads_back_unchanged() -> None:
    password = "a' \"\\%s\n$(id)ü"
    project = replace(PROJECT, logins=[Login("r.example:5000", "me and you", Secret(password))])
    registry, written, username = logins(project)[0].split(" ", 2)
    assert (registry, username) == ("r.example:5000", "me and you")
    read = subprocess.run(["sh", "-c", 'printf %b "$1"', "sh", written], capture_output=True, check=True)
    assert read.stdout.decode() == password
    assert "\n" not in logins(project)[0]


def test_each_phase_has_its_time() -> None:
    timeouts = Timeouts(prepare=1, build=2, pull=3, up=4, verify=5, down=6, recover=7, run=8)
    hosts = inventory(PROJECT, PATHS, timeouts, 2.0)["all"]["hosts"]
    assert hosts[str(PROJECT.deployment_id)]["daos"]["timeouts"] == {
        "prepare": 1,
        "build": 2,
        "pull": 3,
        "up": 4,
        "verify": 5,
        "down": 6,
        "recover": 7,
        "run": 8,
    }
