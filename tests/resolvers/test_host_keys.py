"""What a real host shows, and which key it is believed by, on both engines."""

import asyncio
from typing import Any

import pytest

from db.database import Database
from db.models import Host, HostTransport
from resolvers import host_keys, hosts
from resolvers.errors import HostUnreachable, InvalidInput, NotFound
from resolvers.hosts import Changes
from runner.ssh import keys
from tests import factories
from tests.support.attacks import UNKNOWN
from tests.support.port import free_port
from tests.support.sshd import SshServer

OTHER = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"
NOT_SHOWN = keys.fingerprint(f"* {OTHER}")


async def _behind(sshd: SshServer, db: Database, **values: Any) -> Host:
    return await factories.host(db, **{"address": sshd.address, "port": sshd.port, **values})


def _problem(refused: pytest.ExceptionInfo[InvalidInput]) -> tuple[tuple[str | int, ...], str]:
    [problem] = refused.value.problems
    return problem.path, problem.code


async def test_a_scan_shows_the_hosts_key_and_changes_nothing(db: Database, sshd: SshServer) -> None:
    host = await _behind(sshd, db)
    found, [key] = await host_keys.show(db, str(host.id))
    assert (found.id, key.fingerprint) == (host.id, sshd.host_key_fingerprint)
    now = await hosts.get(db, str(host.id))
    assert (now.host_key_fingerprint, now.known_hosts, now.updated_at) == (None, None, host.updated_at)


@pytest.mark.parametrize("before", [None, f"* {OTHER}\n"])
async def test_a_key_that_the_host_shows_is_pinned_in_place_of_another(
    db: Database, sshd: SshServer, before: str | None
) -> None:
    host = await _behind(sshd, db, known_hosts=before, host_key_fingerprint=before and NOT_SHOWN)
    await host_keys.trust(db, str(host.id), sshd.host_key_fingerprint)
    now = await hosts.get(db, str(host.id))
    assert (now.host_key_fingerprint, now.known_hosts) == (sshd.host_key_fingerprint, f"* {sshd.host_key}\n")


async def test_authorities_stay(db: Database, sshd: SshServer) -> None:
    host = await _behind(sshd, db, known_hosts=f"@cert-authority * {OTHER}\n* {OTHER}\n")
    now = await host_keys.trust(db, str(host.id), sshd.host_key_fingerprint)
    assert now.known_hosts == f"* {sshd.host_key}\n@cert-authority * {OTHER}\n"


async def test_a_key_that_the_host_does_not_show_is_not_pinned(db: Database, sshd: SshServer) -> None:
    host = await _behind(sshd, db)
    with pytest.raises(InvalidInput, match=sshd.host_key_fingerprint.replace("+", r"\+")) as refused:
        await host_keys.trust(db, str(host.id), NOT_SHOWN)
    assert _problem(refused) == (("fingerprint",), "NOT_SHOWN")
    assert (await hosts.get(db, str(host.id))).known_hosts is None


@pytest.mark.parametrize("change", ["", "{}=", "{}\n", "{} ", "MD5:{}", "a"])
async def test_what_is_no_fingerprint_is_refused_before_anybody_is_asked(
    db: Database, sshd: SshServer, change: str
) -> None:
    host = await factories.host(db, address="no-such-host.invalid")
    with pytest.raises(InvalidInput) as refused:
        await host_keys.trust(db, str(host.id), change.format(sshd.host_key_fingerprint))
    assert _problem(refused) == (("fingerprint",), "FINGERPRINT")


async def test_a_host_that_does_not_answer_is_told(db: Database, sshd: SshServer) -> None:
    host = await _behind(sshd, db, port=free_port(sshd.address))
    for asked in (host_keys.show(db, str(host.id)), host_keys.trust(db, str(host.id), NOT_SHOWN)):
        with pytest.raises(HostUnreachable, match="refuses the connection"):
            await asked


async def test_the_servers_own_machine_shows_no_key(db: Database) -> None:
    host = await factories.host(db, transport=HostTransport.LOCAL, address=None)
    for asked in (host_keys.show(db, str(host.id)), host_keys.trust(db, str(host.id), NOT_SHOWN)):
        with pytest.raises(InvalidInput) as refused:
            await asked
        assert _problem(refused) == (("host_id",), "LOCAL")


async def test_a_host_that_is_not_there_is_not_found(db: Database) -> None:
    for host_id in UNKNOWN:
        for asked in (host_keys.show(db, host_id), host_keys.trust(db, host_id, NOT_SHOWN)):
            with pytest.raises(NotFound):
                await asked


@pytest.mark.parametrize("meanwhile", ["moved", "deleted"])
async def test_the_key_of_another_place_is_not_pinned(db: Database, sshd: SshServer, meanwhile: str) -> None:
    host = await _behind(sshd, db)
    asked = await hosts.get(db, str(host.id))
    if meanwhile == "moved":
        await hosts.update(db, str(host.id), Changes(address="new.example"))
    else:
        await hosts.remove(db, str(host.id))
    async with db.write() as session:
        with pytest.raises(InvalidInput if meanwhile == "moved" else NotFound):
            await host_keys._get_unmoved(session, asked)


async def test_of_two_who_trust_at_once_both_are_told_the_same(db: Database, sshd: SshServer) -> None:
    host = await _behind(sshd, db)
    both = (host_keys.trust(db, str(host.id), sshd.host_key_fingerprint) for _ in range(2))
    assert {each.host_key_fingerprint for each in await asyncio.gather(*both)} == {sshd.host_key_fingerprint}
