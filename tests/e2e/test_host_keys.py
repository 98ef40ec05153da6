"""Which hosts are believed: scanned, trusted, imported, signed for, or refused."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.conftest import MakeSshd
from tests.e2e.conftest import QUICK, NewProject
from tests.support.client import SLEEPER, Client, Json, Refused
from tests.support.server import Server
from tests.support.sshd import SshServer, make_key

KEYS = "keys { type fingerprint isPinned }"
HOST = "host { hostKeyFingerprint pinnedKeys { type fingerprint isAuthority } }"


@pytest.fixture(scope="module")
def strict_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that talks to no host without a pinned key."""
    server = Server(
        tmp_path_factory.mktemp("server"), {**QUICK, "DAOS_WARM": "false", "DAOS_HOST_KEY_POLICY": "strict"}
    )
    server.start()
    yield server
    server.close()


@pytest.fixture
async def strict(strict_server: Server) -> AsyncIterator[Client]:
    """A client of the strict server."""
    client = Client(strict_server)
    yield client
    await client.close()


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    """The private key of an authority."""
    return make_key(tmp_path / "authority")


def signed_by(authority: Path, names: str) -> str:
    return f"@cert-authority {names} {authority.with_suffix('.pub').read_text()}"


async def scan(client: Client, host: str) -> list[Json]:
    keys: list[Json] = (await client.change("scanHostKey", KEYS, hostId=host))["keys"]
    return keys


async def trust(client: Client, host: str, fingerprint: str) -> Json:
    told: Json = (await client.change("trustHostKey", HOST, hostId=host, fingerprint=fingerprint))["host"]
    return told


async def see(client: Client, host: str) -> Json:
    told: Json = await client.ask(
        "query($id: ID!) { host(id: $id) { hostKeyFingerprint pinnedKeys { type } } }", id=host
    )
    return dict(told["host"])


async def deploy(client: Client, host: str, project: str) -> str:
    return await client.deployment(host, await client.package({"web": SLEEPER}), project)


async def test_a_new_host_is_refused_until_its_key_is_trusted(strict: Client, sshd: SshServer, project: str) -> None:
    host = await strict.ssh_host(sshd)
    deployment = await deploy(strict, host, project)
    refused = await strict.play(deployment)
    assert refused["reason"] == "HOST_KEY_UNKNOWN"
    assert "scanHostKey" in refused["message"]
    assert "trustHostKey" in refused["message"]
    assert not any(entry["phase"] for entry in await strict.log(refused["id"]))  # nobody has talked to it

    [shown] = await scan(strict, host)
    assert shown == {"type": "ssh-ed25519", "fingerprint": sshd.host_key_fingerprint, "isPinned": False}
    assert await see(strict, host) == {"hostKeyFingerprint": None, "pinnedKeys": []}
    told = await trust(strict, host, shown["fingerprint"])
    assert told["hostKeyFingerprint"] == sshd.host_key_fingerprint
    assert [key["isPinned"] for key in await scan(strict, host)] == [True]
    assert (await strict.play(deployment))["status"] == "SUCCESS"


async def test_a_changed_key_is_refused_until_it_is_trusted(client: Client, make_sshd: MakeSshd, project: str) -> None:
    sshd = make_sshd()
    host = await client.ssh_host(sshd)
    deployment = await deploy(client, host, project)
    assert (await client.play(deployment))["status"] == "SUCCESS"
    before = sshd.host_key_fingerprint
    sshd.change_host_key()
    after = sshd.host_key_fingerprint

    refused = await client.play(deployment)
    assert refused["reason"] == "HOST_KEY_MISMATCH"
    assert f"shown is {after}; pinned is {before}" in refused["message"]
    assert "trustHostKey" in refused["message"]
    assert (await see(client, host))["hostKeyFingerprint"] == before

    with pytest.raises(Refused) as wrong:
        await trust(client, host, before)
    [problem] = wrong.value.error["extensions"]["problems"]
    assert (problem["path"], problem["code"]) == (["input", "fingerprint"], "NOT_SHOWN")
    assert after in problem["message"]

    assert (await trust(client, host, after))["hostKeyFingerprint"] == after
    assert (await client.play(deployment))["status"] == "SUCCESS"


async def test_an_imported_key_makes_the_first_contact_strict(
    strict: Client, make_sshd: MakeSshd, project: str
) -> None:
    sshd = make_sshd()
    lines = f"# from the console\n[{sshd.address}]:{sshd.port} {sshd.host_key}\n"
    host = await strict.ssh_host(sshd, knownHosts=lines)
    assert (await see(strict, host))["hostKeyFingerprint"] == sshd.host_key_fingerprint
    deployment = await deploy(strict, host, project)
    assert (await strict.play(deployment))["status"] == "SUCCESS"


async def test_another_key_than_the_imported_one_is_refused_at_the_first_contact(
    client: Client, sshd: SshServer, make_sshd: MakeSshd, project: str
) -> None:
    other = make_sshd()
    host = await client.ssh_host(sshd, knownHosts=other.host_key)
    refused = await client.play(await deploy(client, host, project))
    assert refused["reason"] == "HOST_KEY_MISMATCH"
    assert f"shown is {sshd.host_key_fingerprint}; pinned is {other.host_key_fingerprint}" in refused["message"]
    await client.change("updateHost", HOST, hostId=host, knownHosts=sshd.host_key)
    assert (await see(client, host))["hostKeyFingerprint"] == sshd.host_key_fingerprint


async def test_a_key_of_another_type_than_the_pinned_one_is_another_key(
    client: Client, make_sshd: MakeSshd, tmp_path: Path, project: str
) -> None:
    sshd = make_sshd()
    other = make_key(tmp_path / "other", "ecdsa").with_suffix(".pub")
    host = await client.ssh_host(sshd, knownHosts=other.read_text())
    assert (await client.play(await deploy(client, host, project)))["reason"] == "HOST_KEY_MISMATCH"


async def test_each_of_the_keys_that_a_host_shows_can_be_trusted(
    strict: Client, make_sshd: MakeSshd, new_project: NewProject
) -> None:
    sshd = make_sshd()
    sshd.add_host_key("rsa")
    host = await strict.ssh_host(sshd)
    for turn in range(2):
        shown = await scan(strict, host)
        assert [key["type"] for key in shown] == ["ssh-ed25519", "ssh-rsa"]
        await trust(strict, host, shown[turn]["fingerprint"])
        assert [key["isPinned"] for key in await scan(strict, host)] == [turn == 0, turn == 1]
        assert (await strict.play(await deploy(strict, host, new_project())))["status"] == "SUCCESS"


async def test_a_certificate_of_an_authority_is_accepted_and_nothing_is_pinned(
    strict: Client, make_sshd: MakeSshd, authority: Path, new_project: NewProject
) -> None:
    sshd = make_sshd()
    sshd.certify(authority, "other.example", sshd.address)
    host = await strict.ssh_host(sshd, knownHosts=signed_by(authority, "127.*"))
    deployment = await deploy(strict, host, new_project())
    assert (await strict.play(deployment))["status"] == "SUCCESS"
    assert await see(strict, host) == {"hostKeyFingerprint": None, "pinnedKeys": [{"type": "ssh-ed25519"}]}

    sshd.change_host_key()
    sshd.certify(authority, sshd.address)
    # A login that is open would be used.
    later = await strict.ssh_host(sshd, knownHosts=signed_by(authority, "*"))
    assert (await strict.play(await deploy(strict, later, new_project())))["status"] == "SUCCESS"


@pytest.mark.parametrize("wrong", ["none", "name", "authority", "expired"])
async def test_a_host_that_no_authority_has_signed_for_is_refused(
    client: Client, make_sshd: MakeSshd, authority: Path, tmp_path: Path, project: str, wrong: str
) -> None:
    sshd = make_sshd()
    if wrong == "name":
        sshd.certify(authority, "other.example")
    if wrong == "authority":
        sshd.certify(make_key(tmp_path / "another"), sshd.address)
    if wrong == "expired":
        sshd.certify(authority, sshd.address, valid="-2d:-1d")
    host = await client.ssh_host(sshd, knownHosts=signed_by(authority, "*"))
    deployment = await deploy(client, host, project)
    refused = await client.play(deployment)
    assert refused["reason"] == "HOST_KEY_MISMATCH"
    assert f"no certificate of a trusted authority fits {sshd.address}" in refused["message"]
    assert ("not a listed principal" in refused["message"]) == (wrong == "name")
    assert ("invalid: expired" in refused["message"]) == (wrong == "expired")
    assert await see(client, host) == {"hostKeyFingerprint": None, "pinnedKeys": [{"type": "ssh-ed25519"}]}

    told = await trust(client, host, sshd.host_key_fingerprint)
    assert [key["isAuthority"] for key in told["pinnedKeys"]] == [False, True]
    assert (await client.play(deployment))["status"] == "SUCCESS"
