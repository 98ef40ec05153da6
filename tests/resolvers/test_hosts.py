"""Hosts, on both engines."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

import pytest

from db import status
from db.broadcast import Broadcast
from db.database import Database
from db.models import Deployment, DeploymentStatus, Host, HostTransport, RunAction, RunStatus
from resolvers import deployments, hosts
from resolvers.errors import HostHasRunInProgress, HostNotFound, InUse, InvalidInput, NameTaken, NotFound
from resolvers.hosts import Changes
from runner.ssh import keys
from tests import factories
from tests.support.attacks import LONG, TEMPLATES, UNKNOWN, UNPRINTABLE
from tests.support.locks import until_one_waits

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"


async def _pinned(db: Database, **values: Any) -> Host:
    return await factories.host(db, host_key_fingerprint="SHA256:x", known_hosts="host ssh-ed25519 AAAA", **values)


def _problems(refused: pytest.ExceptionInfo[InvalidInput]) -> list[tuple[tuple[str | int, ...], str]]:
    return [(problem.path, problem.code) for problem in refused.value.problems]


async def test_a_host_is_created_as_it_is_given(db: Database) -> None:
    created = await hosts.create(
        db, name="Web 1", address="web.example", port=2222, user="deploy", ssh_key_path="/keys/web"
    )
    host = await hosts.get(db, str(created.id))
    assert (host.name, host.transport, host.address) == ("Web 1", HostTransport.SSH, "web.example")
    assert (host.port, host.user, host.ssh_key_path) == (2222, "deploy", "/keys/web")
    assert (host.host_key_fingerprint, host.known_hosts) == (None, None)
    assert host.created_at.utcoffset() is not None


async def test_the_servers_own_machine_needs_no_address(db: Database) -> None:
    host = await hosts.create(db, name="here", transport=HostTransport.LOCAL)
    assert (host.address, host.ssh_key_path) == (None, None)


async def test_a_name_is_kept_as_it_is(db: Database) -> None:
    for name in (*TEMPLATES, "a\u0301", "😀"):
        created = await hosts.create(db, name=name, address="web.example")
        assert (await hosts.get(db, str(created.id))).name == name


async def test_a_name_that_breaks_a_rule_is_refused(db: Database) -> None:
    for name in (*UNPRINTABLE, LONG, ""):
        with pytest.raises(InvalidInput):
            await hosts.create(db, name=name, address="web.example")


async def test_all_problems_of_a_host_are_told_at_once(db: Database) -> None:
    with pytest.raises(InvalidInput) as refused:
        await hosts.create(db, name="", address="-oProxyCommand=id", port=0, user="$(id)", ssh_key_path="../shadow")
    assert _problems(refused) == [
        (("name",), "EMPTY"),
        (("address",), "ADDRESS"),
        (("ssh_key_path",), "PATH"),
        (("port",), "RANGE"),
        (("user",), "USER"),
    ]


async def test_a_host_that_is_reached_by_ssh_needs_an_address(db: Database) -> None:
    with pytest.raises(InvalidInput) as refused:
        await hosts.create(db, name="web")
    assert _problems(refused) == [(("address",), "REQUIRED")]


async def test_the_servers_own_machine_has_no_address_and_no_key(db: Database) -> None:
    with pytest.raises(InvalidInput) as refused:
        await hosts.create(
            db, name="here", transport=HostTransport.LOCAL, address="127.0.0.1", ssh_key_path="/key", known_hosts=KEY
        )
    assert _problems(refused) == [(("address",), "LOCAL"), (("ssh_key_path",), "LOCAL"), (("known_hosts",), "LOCAL")]


async def test_a_name_is_taken_once(db: Database) -> None:
    await factories.host(db, name="web")
    with pytest.raises(NameTaken, match=r"\AHost 'web' exists already; choose another name\.\Z"):
        await hosts.create(db, name="web", address="other.example")
    await hosts.create(db, name="Web", address="other.example")


async def test_one_of_many_gets_a_name(db: Database) -> None:
    made = await asyncio.gather(
        *(hosts.create(db, name="web", address="web.example") for _ in range(5)), return_exceptions=True
    )
    assert sorted(type(result).__name__ for result in made) == ["Host", *["NameTaken"] * 4]


@pytest.mark.parametrize(
    "act",
    [hosts.get, hosts.remove, lambda db, host_id: hosts.update(db, host_id, Changes(name="new"))],
    ids=["get", "remove", "update"],
)
async def test_a_host_that_is_not_there_is_not_found(
    db: Database, act: Callable[[Database, str], Awaitable[object]]
) -> None:
    for host_id in UNKNOWN:
        with pytest.raises(NotFound):
            await act(db, host_id)


async def test_many_hosts_are_read_by_their_ids(db: Database) -> None:
    one, two = await factories.host(db), await factories.host(db)
    found = await hosts.get_many(db, [one.id, two.id, uuid4()])
    assert {key: host.name for key, host in found.items()} == {one.id: one.name, two.id: two.name}


async def test_an_update_changes_what_is_given(db: Database) -> None:
    host = await factories.host(db, port=2222, user="deploy", ssh_key_path="/key")
    await hosts.update(db, str(host.id), Changes(name="new", ssh_key_path="/other"))
    updated = await hosts.get(db, str(host.id))
    assert (updated.name, updated.ssh_key_path) == ("new", "/other")
    assert (updated.address, updated.port, updated.user) == (host.address, 2222, "deploy")
    assert updated.updated_at > host.updated_at
    assert updated.created_at == host.created_at


async def test_the_path_of_the_key_can_be_taken_away(db: Database) -> None:
    host = await factories.host(db, ssh_key_path="/key")
    assert (await hosts.update(db, str(host.id), Changes(clear_ssh_key_path=True))).ssh_key_path is None


@pytest.mark.parametrize("changes", [Changes(address="new.example"), Changes(port=2222)])
async def test_a_host_that_moves_is_met_anew(db: Database, changes: Changes) -> None:
    host = await _pinned(db)
    await hosts.update(db, str(host.id), changes)
    moved = await hosts.get(db, str(host.id))
    assert (moved.host_key_fingerprint, moved.known_hosts) == (None, None)


async def test_a_host_that_stays_where_it_is_keeps_its_pinned_key(db: Database) -> None:
    # A form that sends every field must not let another machine take the host's place.
    host = await _pinned(db)
    changes = Changes(name="new", address=host.address, port=host.port, user="deploy", ssh_key_path="/new")
    await hosts.update(db, str(host.id), changes)
    stayed = await hosts.get(db, str(host.id))
    assert (stayed.name, stayed.host_key_fingerprint, stayed.known_hosts) == (
        "new",
        host.host_key_fingerprint,
        host.known_hosts,
    )


async def test_a_key_that_is_given_is_pinned_before_the_first_contact(db: Database) -> None:
    host = await hosts.create(db, name="web", address="web.example", known_hosts=f"web.example {KEY} root@web\n")
    assert (host.host_key_fingerprint, host.known_hosts) == (keys.fingerprint(f"* {KEY}"), f"* {KEY}\n")
    signed = await hosts.create(db, name="db", address="db.example", known_hosts=f"@cert-authority *.example {KEY}")
    assert (signed.host_key_fingerprint, signed.known_hosts) == (None, f"@cert-authority * {KEY}\n")


async def test_keys_of_an_update_take_the_place_of_those_so_far_wherever_it_moves(db: Database) -> None:
    host = await _pinned(db)
    changes = Changes(address="new.example", port=2222, known_hosts=f"[new.example]:2222 {KEY}")
    await hosts.update(db, str(host.id), changes)
    assert (await hosts.get(db, str(host.id))).known_hosts == f"* {KEY}\n"


async def test_a_host_that_moves_forgets_its_authorities_too(db: Database) -> None:
    host = await hosts.create(db, name="db", address="db.example", known_hosts=f"@cert-authority *.example {KEY}")
    assert (await hosts.update(db, str(host.id), Changes(port=2222))).known_hosts is None


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "EMPTY"),
        (f"other.example {KEY}", "NAME"),
        (f"@revoked * {KEY}", "MARKER"),
        (f"{KEY}\0", "CHARACTER"),
        (f"{KEY} a\x1b[31m", "CHARACTER"),
        (f"{KEY} a\rother.example {KEY}", "CHARACTER"),
        (f"{KEY}\u2028{KEY}", "CHARACTER"),
        ("ssh-ed25519 \ud800", "CHARACTER"),
        (f"{KEY}\nStrictHostKeyChecking no", "KEY_TYPE"),
        (f"{KEY}\n" * 2000, "TOO_LONG"),
        (LONG, "TOO_LONG"),
    ],
)
async def test_keys_that_break_a_rule_are_refused(db: Database, text: str, code: str) -> None:
    host = await _pinned(db, address="web.example")
    for act in (
        hosts.create(db, name="web", address="web.example", known_hosts=text),
        hosts.update(db, str(host.id), Changes(known_hosts=text)),
    ):
        with pytest.raises(InvalidInput) as refused:
            await act
        assert _problems(refused) == [(("known_hosts",), code)]
    assert (await hosts.get(db, str(host.id))).known_hosts == host.known_hosts


async def test_an_address_that_is_none_is_one_problem_of_given_keys(db: Database) -> None:
    with pytest.raises(InvalidInput) as refused:
        await hosts.create(db, name="web", address="a b", known_hosts=KEY)
    assert _problems(refused) == [(("address",), "ADDRESS")]


async def test_all_problems_of_an_update_are_told_at_once(db: Database) -> None:
    host = await factories.host(db)
    with pytest.raises(InvalidInput) as refused:
        await hosts.update(db, str(host.id), Changes("\n", "a b", 0, "$(id)", "key"))
    assert {path for path, _ in _problems(refused)} == {
        ("name",), ("address",), ("port",), ("user",), ("ssh_key_path",),
    }  # fmt: skip
    assert (await hosts.get(db, str(host.id))).name == host.name


async def test_the_servers_own_machine_gets_no_address_later(db: Database) -> None:
    host = await factories.host(db, transport=HostTransport.LOCAL, address=None)
    with pytest.raises(InvalidInput) as refused:
        await hosts.update(db, str(host.id), Changes(address="web.example", ssh_key_path="/key", known_hosts=KEY))
    assert _problems(refused) == [(("address",), "LOCAL"), (("ssh_key_path",), "LOCAL"), (("known_hosts",), "LOCAL")]
    assert (await hosts.update(db, str(host.id), Changes(name="new"))).name == "new"


async def test_an_update_cannot_take_a_name(db: Database) -> None:
    await factories.host(db, name="web")
    host = await factories.host(db)
    with pytest.raises(NameTaken, match="Host 'web'"):
        await hosts.update(db, str(host.id), Changes(name="web"))
    assert (await hosts.update(db, str(host.id), Changes(name=host.name))).name == host.name


@pytest.mark.parametrize("active", [RunStatus.QUEUED, RunStatus.RUNNING])
async def test_a_host_is_not_changed_while_it_is_deployed_to(db: Database, active: RunStatus) -> None:
    host = await _pinned(db)
    await factories.deployment(db, on=host)
    run = await factories.run(db, await factories.deployment(db, on=host), active)
    with pytest.raises(HostHasRunInProgress, match=f"'{host.id}' cannot be changed during run '{run.id}'; wait"):
        await hosts.update(db, str(host.id), Changes(address="new.example"))
    assert (await hosts.get(db, str(host.id))).host_key_fingerprint == host.host_key_fingerprint


async def test_a_host_is_changed_between_runs_and_while_others_are_deployed_to(db: Database) -> None:
    host = await factories.host(db)
    await factories.run(db, await factories.deployment(db, on=host), RunStatus.FAILED)
    await factories.run(db, to=RunStatus.RUNNING)
    assert (await hosts.update(db, str(host.id), Changes(name="new"))).name == "new"


async def test_a_run_that_is_being_started_is_seen_by_an_update(postgresql_db: Database) -> None:
    db = postgresql_db
    host = await factories.host(db)
    deployment = await factories.deployment(db, on=host)
    async with db.write() as session:
        await status.start(session, deployment.id, RunAction.UP)
        update = asyncio.create_task(hosts.update(db, str(host.id), Changes(address="new.example")))
        await until_one_waits(db)
    with pytest.raises(HostHasRunInProgress):
        await update


async def test_a_host_is_deleted(db: Database) -> None:
    host = await factories.host(db)
    assert await hosts.remove(db, str(host.id)) == host.id
    with pytest.raises(NotFound):
        await hosts.get(db, str(host.id))


async def test_a_host_in_use_is_not_deleted(db: Database) -> None:
    host = await factories.host(db)
    for _ in range(2):
        await factories.deployment(db, on=host)
    with pytest.raises(InUse, match=r"is in use by 2 deployments; the first is '[-0-9a-f]{36}'\.\Z"):
        await hosts.remove(db, str(host.id))


async def test_a_deployment_that_is_being_created_keeps_its_host(postgresql_db: Database) -> None:
    db = postgresql_db
    host, package = await factories.host(db), await factories.package(db)
    async with db.write() as session:
        await session.get(Host, host.id, with_for_update={"read": True, "key_share": True})
        values = {"project_name": "project", "status": DeploymentStatus.PENDING}
        session.add(Deployment(host_id=host.id, package_id=package.id, **values))
        await session.flush()
        remove = asyncio.create_task(hosts.remove(db, str(host.id)))
        await until_one_waits(db)
    with pytest.raises(InUse):
        await remove


async def test_a_host_is_deleted_or_deployed_to_but_not_both(db: Database, broadcast: Broadcast) -> None:
    package = await factories.package(db)

    async def create(host: Host) -> bool:
        try:
            await deployments.create(db, broadcast, host_id=str(host.id), package_id=str(package.id))
        except HostNotFound:
            return False
        return True

    async def remove(host: Host) -> bool:
        try:
            await hosts.remove(db, str(host.id))
        except InUse:
            return False
        return True

    for _ in range(5):
        host = await factories.host(db)
        assert sum(await asyncio.gather(create(host), remove(host))) == 1


async def test_one_of_two_deletes_of_a_host_finds_it(db: Database) -> None:
    host = await factories.host(db)
    results = await asyncio.gather(*(hosts.remove(db, str(host.id)) for _ in range(2)), return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["NotFound", "UUID"]
