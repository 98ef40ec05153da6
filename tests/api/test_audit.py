"""Who asked for what: every mutation, in its own transaction where it did something, and for ever."""

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import select, update
from sqlalchemy.exc import DBAPIError

from db.models import AuditEntry, Host, Role, now
from resolvers import audit, tokens
from resolvers.audit import Deed
from resolvers.tokens import Principal
from tests import factories
from tests.support.api import Api, audit_entries
from tests.support.full_disk import full

CREATE_HOST = "mutation($input: CreateHostInput!) { createHost(input: $input) { host { id } } }"
GIVEN = {"name": "web", "address": "web.example"}


async def test_a_mutation_is_written_down_with_what_it_named_and_made(api: Api) -> None:
    api.context.address = "192.0.2.7"
    deployment = await factories.deployment(api.db)
    document = "mutation($id: ID!) { runDeployment(input: {deploymentId: $id}) { run { id } } }"
    run_id = (await api.ask(document, id=str(deployment.id)))["runDeployment"]["run"]["id"]
    assert await audit_entries(api) == [
        {
            "principal": "test",
            "tokenId": None,
            "address": "192.0.2.7",
            "mutation": "runDeployment",
            "objectIds": [str(deployment.id), run_id],
            "outcome": "OK",
        }
    ]


async def test_a_token_is_written_down_by_its_id_also_when_it_is_refused(api: Api) -> None:
    token, secret = await tokens.create(api.db, "impostor", Role.DEPLOYER)
    found = await tokens.find(api.db, secret.reveal())
    # What a token of an earlier release can still be called.
    api.context.identify(replace(found, name="admin"))
    package = await factories.package(api.db)
    await api.ask("mutation($id: ID!) { deletePackage(input: {packageId: $id}) { __typename } }", id=str(package.id))
    await api.error(CREATE_HOST, input=GIVEN)
    api.context.identify(Principal("admin"))
    await api.ask(CREATE_HOST, input=GIVEN)
    told = [(entry["principal"], entry["tokenId"], entry["outcome"]) for entry in await audit_entries(api)]
    mine = str(token.id)
    assert told == [("admin", None, "OK"), ("admin", mine, "FORBIDDEN"), ("admin", mine, "OK")]
    assert [entry["tokenId"] async for entry in audit.export(api.db)] == [mine, mine, None]


async def test_what_was_refused_is_written_down_with_the_reason(api: Api) -> None:
    await api.ask(CREATE_HOST, input=GIVEN)
    await api.error(CREATE_HOST, input=GIVEN)
    await api.error(CREATE_HOST, input={**GIVEN, "port": 0})
    api.context.identify(Principal("curious", Role.VIEWER))
    await api.error(CREATE_HOST, input=GIVEN)
    told = [(entry["principal"], entry["outcome"], len(entry["objectIds"])) for entry in await audit_entries(api)]
    assert told == [
        ("curious", "FORBIDDEN", 0),
        ("test", "BAD_USER_INPUT", 0),
        ("test", "NAME_TAKEN", 0),
        ("test", "OK", 1),
    ]


async def test_a_mutation_that_finds_no_room_says_so_and_nothing_was_changed(api: Api) -> None:
    document = "mutation($input: CreatePackageInput!) { createPackage(input: $input) { package { id } } }"
    files = [{"path": f"{number}", "content": "x" * 1_000_000} for number in range(4)]
    compose_file = '{"services": {"web": {"image": "demo:1"}}}'
    async with full(api.db):
        given = {"name": "web", "version": "1", "composeFile": compose_file, "files": files}
        error = await api.error(document, input=given)
    assert error["message"] == "The server's storage is full, and nothing was changed; queries still work."
    assert error["extensions"] == {"code": "STORAGE_FULL", "status": 507}
    assert (await api.ask("{ packages { totalCount } }"))["packages"]["totalCount"] == 0


async def test_what_was_unexpected_is_written_down_too(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object, **__: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr("resolvers.hosts.create", broken)
    await api.error(CREATE_HOST, input=GIVEN)
    assert [entry["outcome"] for entry in await audit_entries(api)] == ["INTERNAL_SERVER_ERROR"]


async def test_a_mutation_that_cannot_be_written_down_is_not_done(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_: object) -> None:
        raise RuntimeError("no room")

    monkeypatch.setattr(Deed, "witness", refuse)
    await api.error(CREATE_HOST, input=GIVEN)
    async with api.db.read() as session:
        assert (await session.scalars(select(Host))).all() == []


async def test_two_mutations_of_an_operation_are_two_entries(api: Api) -> None:
    document = """mutation { a: createHost(input: {name: "a", address: "a"}) { host { id } }
        b: createHost(input: {name: "b", address: "b"}) { host { id } } }"""
    made = await api.ask(document)
    told = [entry["objectIds"] for entry in await audit_entries(api)]
    assert told == [[made["b"]["host"]["id"]], [made["a"]["host"]["id"]]]


async def test_no_secret_is_written_down(api: Api) -> None:
    secret = (await api.ask('mutation { createToken(input: {name: "ci", role: VIEWER}) { secret } }'))["createToken"]
    host, package = await factories.host(api.db), await factories.package(api.db)
    document = """mutation($host: ID!, $package: ID!) { createDeployment(input: {hostId: $host, packageId: $package,
        variables: [{name: "PASSWORD", value: "hunter2", secret: true}]}) { deployment { id } } }"""
    await api.ask(document, host=str(host.id), package=str(package.id))
    told = str([entry async for entry in audit.export(api.db)])
    assert "createToken" in told
    assert "createDeployment" in told
    assert secret["secret"] not in told
    assert "hunter2" not in told


async def test_what_was_written_is_not_changed(api: Api) -> None:
    await api.ask(CREATE_HOST, input=GIVEN)
    with pytest.raises(DBAPIError, match="is not changed"):
        async with api.db.write() as session:
            await session.execute(update(AuditEntry).values(principal="nobody"))
    assert [entry["principal"] for entry in await audit_entries(api)] == ["test"]


async def test_old_entries_go_when_new_ones_come(api: Api) -> None:
    async with api.db.write() as session:
        usual = {"principal": "p", "mutation": "m", "object_ids": [], "outcome": "OK"}
        session.add(AuditEntry(at=now() - timedelta(days=3), **usual))
        session.add(AuditEntry(at=now() - timedelta(days=1), **usual))
    api.context.retention = timedelta(days=2)
    await api.ask(CREATE_HOST, input=GIVEN)
    assert [entry["principal"] for entry in await audit_entries(api)] == ["test", "p"]
