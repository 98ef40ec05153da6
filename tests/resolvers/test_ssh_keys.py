"""Keys that are kept, on both engines."""

import asyncio

import pytest
from sqlalchemy import select

from db.database import Database
from db.encryption import Secret
from db.models import Host, HostTransport, SshKey
from resolvers import hosts, private_keys, ssh_keys
from resolvers.errors import InUse, InvalidInput, NameTaken, NotFound
from resolvers.hosts import Changes
from resolvers.idempotency import Key
from tests import factories
from tests.support.attacks import LONG, UNKNOWN, UNPRINTABLE
from tests.support.locks import until_one_waits


def _problems(refused: pytest.ExceptionInfo[InvalidInput]) -> list[tuple[tuple[str | int, ...], str]]:
    return [(problem.path, problem.code) for problem in refused.value.problems]


async def _stored(db: Database) -> list[SshKey]:
    async with db.read() as session:
        return list(await session.scalars(select(SshKey)))


async def test_a_key_is_kept_encrypted(db: Database) -> None:
    given = private_keys.generate()
    await ssh_keys.create(db, name="web", private_key=given.text)
    [row] = await _stored(db)
    assert (row.name, row.public_key, row.fingerprint) == ("web", f"{given.public} web", given.fingerprint)
    stored = db.keyring.decrypt(row.ciphertext)
    assert private_keys.read(stored, None).public == given.public
    assert "PRIVATE KEY" not in row.ciphertext


async def test_a_key_is_made_where_none_is_given(db: Database) -> None:
    one, other = [await ssh_keys.create(db, name=name) for name in ("one", "other")]
    assert one.fingerprint != other.fingerprint
    assert one.public_key.startswith("ssh-ed25519 ")


async def test_what_is_wrong_is_told_by_argument_and_without_the_value(db: Database) -> None:
    for name, private_key, passphrase, expected in (
        ("", "no key", None, [(("name",), "EMPTY"), (("private_key",), "PRIVATE_KEY")]),
        ("web", None, "hunter2", [(("passphrase",), "ALONE")]),
        ("web", "x" * 16_385, None, [(("private_key",), "TOO_LONG")]),
        ("web", "a\0b", "x" * 1025, [(("private_key",), "CHARACTER"), (("passphrase",), "TOO_LONG")]),
        ("web", "no key", "\ud800", [(("passphrase",), "CHARACTER")]),
        ("web", private_keys.generate().text.reveal(), "hunter2", [(("passphrase",), "NEEDLESS")]),
    ):
        with pytest.raises(InvalidInput) as refused:
            await ssh_keys.create(
                db,
                name=name,
                private_key=None if private_key is None else Secret(private_key),
                passphrase=None if passphrase is None else Secret(passphrase),
            )
        assert _problems(refused) == expected
        words = " ".join(problem.message for problem in refused.value.problems)
        assert not [given for given in (private_key, passphrase) if given and given in words]
    assert await _stored(db) == []


async def test_a_name_that_breaks_a_rule_is_refused(db: Database) -> None:
    for name in (*UNPRINTABLE, LONG, ""):
        with pytest.raises(InvalidInput):
            await ssh_keys.create(db, name=name)


async def test_a_name_is_taken_once(db: Database) -> None:
    await ssh_keys.create(db, name="web")
    with pytest.raises(NameTaken, match=r"\ASSH key 'web' exists already; choose another name\.\Z"):
        await ssh_keys.create(db, name="web")


async def test_a_key_that_is_not_there_is_not_found(db: Database) -> None:
    host = await factories.host(db)
    for key_id in UNKNOWN:
        with pytest.raises(NotFound):
            await ssh_keys.remove(db, key_id)
        with pytest.raises(NotFound):
            await hosts.create(db, name="web", address="web.example", ssh_key_id=key_id)
        with pytest.raises(NotFound):
            await hosts.update(db, str(host.id), Changes(ssh_key_id=key_id))


async def test_a_key_that_a_host_names_is_not_deleted(db: Database) -> None:
    key = await factories.ssh_key(db)
    host = await hosts.create(db, name="web", address="web.example", ssh_key_id=str(key.id))
    assert host.ssh_key_id == key.id
    with pytest.raises(InUse, match=r"is in use by host '[-0-9a-f]{36}'\.\Z"):
        await ssh_keys.remove(db, str(key.id))
    await hosts.update(db, str(host.id), Changes(clear_ssh_key_id=True))
    assert await ssh_keys.remove(db, str(key.id)) == key.id
    assert await _stored(db) == []


async def test_a_host_has_a_key_or_a_path(db: Database) -> None:
    key = await factories.ssh_key(db)
    with pytest.raises(InvalidInput) as refused:
        await hosts.create(db, name="web", address="web.example", ssh_key_path="/key", ssh_key_id=str(key.id))
    assert _problems(refused) == [(("ssh_key_id",), "BOTH")]
    host = await factories.host(db, ssh_key_path="/key")
    with pytest.raises(InvalidInput) as refused:
        await hosts.update(db, str(host.id), Changes(ssh_key_path="/other", ssh_key_id=str(key.id)))
    assert _problems(refused) == [(("ssh_key_id",), "BOTH")]
    for changes, path, key_id in (
        (Changes(ssh_key_id=str(key.id)), None, key.id),
        (Changes(name="new"), None, key.id),
        (Changes(ssh_key_path="/other"), "/other", None),
        (Changes(ssh_key_id=str(key.id), clear_ssh_key_path=True), None, key.id),
        (Changes(clear_ssh_key_path=True), None, key.id),
        (Changes(clear_ssh_key_id=True), None, None),
    ):
        await hosts.update(db, str(host.id), changes)
        updated = await hosts.get(db, str(host.id))
        assert (updated.ssh_key_path, updated.ssh_key_id) == (path, key_id)


async def test_the_servers_own_machine_has_no_key(db: Database) -> None:
    key = str((await factories.ssh_key(db)).id)
    with pytest.raises(InvalidInput) as refused:
        await hosts.create(db, name="here", transport=HostTransport.LOCAL, ssh_key_id=key)
    assert _problems(refused) == [(("ssh_key_id",), "LOCAL")]
    here = await factories.host(db, transport=HostTransport.LOCAL, address=None)
    with pytest.raises(InvalidInput) as refused:
        await hosts.update(db, str(here.id), Changes(ssh_key_id=key))
    assert _problems(refused) == [(("ssh_key_id",), "LOCAL")]


async def test_another_key_is_another_request(db: Database) -> None:
    key = str((await factories.ssh_key(db)).id)
    asked = Key("ci", "createHost", "one")
    first = await hosts.create(db, name="web", address="web.example", ssh_key_id=key, key=asked)
    again = await hosts.create(db, name="web", address="web.example", ssh_key_id=key, key=asked)
    assert again.id == first.id
    with pytest.raises(InvalidInput) as refused:
        await hosts.create(db, name="web", address="web.example", key=asked)
    assert _problems(refused) == [(("idempotency_key",), "IDEMPOTENCY_KEY")]


async def test_a_key_is_not_deleted_while_a_host_is_created_with_it(postgresql_db: Database) -> None:
    db = postgresql_db
    key = await factories.ssh_key(db)
    async with db.write() as session:
        kept = await ssh_keys.kept(session, str(key.id))
        remove = asyncio.create_task(ssh_keys.remove(db, str(key.id)))
        await until_one_waits(db)
        values = {"transport": HostTransport.SSH, "address": "web.example", "port": 22, "user": "root"}
        session.add(Host(name="web", ssh_key_id=kept, **values))
    with pytest.raises(InUse):
        await remove
