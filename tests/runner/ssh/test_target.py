"""What ssh is told about a host: which key is believed, and which one is offered."""

from pathlib import Path
from typing import Any

import pytest

from db.encryption import Secret
from runner.ssh.target import Target, connection_options
from tests.support.projects import target

KNOWN_HOSTS = Path("/run/known_hosts")
PLAIN = "* ssh-ed25519 AAAA\n"
AUTHORITY = f"@cert-authority {PLAIN}"


def options(of: Target) -> dict[str, str]:
    """The options by name, behind `-F none`."""
    none, file, *rest = connection_options(of, KNOWN_HOSTS)
    assert (none, file) == ("-F", "none")
    return dict(option.removeprefix("-o").split("=", 1) for option in rest)


@pytest.mark.parametrize(("known", "checking"), [(None, "accept-new"), ("", "yes"), (PLAIN, "yes"), (AUTHORITY, "yes")])
def test_a_new_key_is_accepted_at_the_first_contact_only(known: str | None, checking: str) -> None:
    assert options(target(known_hosts=known))["StrictHostKeyChecking"] == checking


def test_a_key_is_pinned_for_the_host_and_a_certificate_is_for_its_address() -> None:
    plain = target(known_hosts=PLAIN)
    assert options(plain)["HostKeyAlias"] == str(plain.id)
    assert options(target(address="Web.Example", known_hosts=AUTHORITY))["HostKeyAlias"] == "web.example"


def test_no_other_file_of_the_machine_is_believed_and_nothing_is_asked() -> None:
    told = options(target())
    assert told["UserKnownHostsFile"] == str(KNOWN_HOSTS)
    assert told["GlobalKnownHostsFile"] == "none"
    assert (told["BatchMode"], told["UpdateHostKeys"]) == ("yes", "no")


@pytest.mark.parametrize(
    ("values", "has_key"), [({}, False), ({"ssh_key_path": Path("/key")}, True), ({"ssh_key": Secret("key")}, True)]
)
def test_with_a_key_of_its_own_no_other_one_is_offered(values: dict[str, Any], has_key: bool) -> None:
    of = target(**values)
    assert of.has_key is has_key
    assert ("IdentitiesOnly" in options(of)) is has_key


def test_no_key_is_in_the_options() -> None:
    assert "hunter2" not in str(connection_options(target(ssh_key=Secret("hunter2")), KNOWN_HOSTS))
