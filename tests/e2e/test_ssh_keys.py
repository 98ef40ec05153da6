"""Keys that the server keeps, on a real sshd."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_ssh_private_key,
)

from db.phase import Phase
from tests.conftest import MakeSshd
from tests.e2e.conftest import Connect, MakeServer
from tests.e2e.test_failures import fail_to_reach
from tests.support.canaries import files_below, leaking, parts
from tests.support.client import ONCE, UNDECIDED, Client
from tests.support.database import stored_key
from tests.support.keys import holders
from tests.support.server import Server, wait_until
from tests.support.sshd import SshServer


def accepted(sshd: SshServer, fingerprint: str) -> int:
    """How many logins this key has opened."""
    return len([line for line in sshd.log.splitlines() if "Accepted publickey" in line and fingerprint in line])


async def test_a_host_with_the_public_part_of_a_new_key_is_deployed_to(
    client: Client, make_sshd: MakeSshd, project: str
) -> None:
    sshd = make_sshd()
    key = await client.ssh_key()
    sshd.authorize(key["publicKey"])
    host = await client.ssh_host(sshd, sshKeyPath=None, sshKeyId=key["id"])
    deployment = await client.deployment(host, await client.package({"once": ONCE}), project)
    for _ in range(3):  # the second one opens a connection that stays, the third one uses it
        assert (await client.play(deployment))["status"] == "SUCCESS"
    assert accepted(sshd, key["fingerprint"]) == sshd.log.count("Accepted publickey") >= 2


@pytest.mark.parametrize("passphrase", [None, "correct horse"])
async def test_an_imported_key_opens_what_its_file_opened(
    client: Client, sshd: SshServer, project: str, passphrase: str | None
) -> None:
    key = await client.ssh_key(privateKey=_text(sshd.key_path, passphrase), passphrase=passphrase)
    assert sshd.key_path.with_suffix(".pub").read_text().split()[1] == key["publicKey"].split()[1]
    host = await client.ssh_host(sshd, sshKeyPath=None, sshKeyId=key["id"])
    deployment = await client.deployment(host, await client.package({"once": ONCE}), project)
    assert (await client.play(deployment))["status"] == "SUCCESS"
    assert accepted(sshd, key["fingerprint"])


def _text(path: Path, passphrase: str | None) -> str:
    if passphrase is None:
        return path.read_text()
    key = load_ssh_private_key(path.read_bytes(), None)
    form = BestAvailableEncryption(passphrase.encode())
    return key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, form).decode()


async def test_a_host_without_the_public_part_refuses_the_login(client: Client, sshd: SshServer) -> None:
    host = await client.ssh_host(sshd, sshKeyPath=None, sshKeyId=(await client.ssh_key())["id"])
    await fail_to_reach(client, host, "AUTHENTICATION_FAILED")


@pytest.mark.parametrize("warm", [False, True])
async def test_a_killed_server_leaves_no_key(
    make_server: MakeServer, connect: Connect, sshd: SshServer, project: str, warm: bool
) -> None:
    server = make_server(warm=str(warm).lower())
    if warm:
        server.wait_until_warm()
    client = connect(server)
    key = await client.ssh_key()
    sshd.authorize(key["publicKey"])
    host = await client.ssh_host(sshd, sshKeyPath=None, sshKeyId=key["id"])
    run_id = await client.start(await client.deployment(host, await client.package({"web": UNDECIDED}), project))
    await client.phase(run_id, Phase.VERIFY)
    text = stored_key(server)
    needles = parts(text)
    assert set(holders(text)) == {str(server.pid)}
    assert left(server, needles) == []
    server.kill()
    assert holders(text) == []
    wait_until(lambda: not server.processes(run_id), "the play has ended")
    assert left(server, needles) == []
    server.start()
    await client.cancel(run_id)
    await client.end_of(run_id)
    assert accepted(sshd, key["fingerprint"]) >= 2  # the host was asked, with the key
    assert holders(text) == []


def left(server: Server, needles: list[str]) -> list[Path]:
    """The files of the server and of its runs with a part of the key in them."""
    roots = [server.directory, *server.run_root.parent.glob(f"{server.run_root.name}*")]
    return list(leaking(files_below(*roots), needles))
