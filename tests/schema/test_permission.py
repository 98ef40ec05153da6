"""Who may do what: the role that each field says it needs, and the hosts that a token is limited to."""

import asyncio
from collections.abc import Iterator
from contextlib import aclosing
from typing import Any
from uuid import UUID

import pytest
from graphql import GraphQLField, GraphQLInterfaceType, GraphQLObjectType, GraphQLUnionType, get_named_type
from sqlalchemy import delete
from strawberry.types import ExecutionResult

import schema
from db import status
from db.broadcast import Everything
from db.models import AuditEntry, HostLabel, Role, Run, RunStatus
from resolvers import deployments, hosts, tokens
from resolvers.deployment_changes import CHANGES
from resolvers.tokens import Principal
from schema.permission import Event, Followed, Recorded
from tests import factories
from tests.support.api import TIMEOUT, Api, needs, take
from tests.support.attacks import UNKNOWN

ADMINS_TYPES = {"Token", "AuditEntry"}
BY_ID = {"Query.node", "Query.nodes"}  # of any type: the resolver leaves out what only admins may see
ANY = "viewer { name role hostLabels }"
DECLARED = {
    Role.VIEWER: [
        "Query.deployment", "Query.deploymentByName", "Query.deployments", "Query.host",
        "Query.hostByName", "Query.hosts", "Query.node", "Query.nodes",
        "Query.package", "Query.packages", "Query.run", "Query.runs", "Query.viewer", "Subscription.deploymentStatus",
        "Subscription.deploymentsChanged", "Subscription.runChanged", "Subscription.runLog",
    ],
    Role.OPERATOR: [
        "Mutation.cancelRun", "Mutation.runDeployment", "Mutation.runDeployments", "Mutation.scanHostKey",
    ],
    Role.DEPLOYER: [
        "Mutation.createDeployment", "Mutation.createPackage", "Mutation.deleteDeployment", "Mutation.deletePackage",
    ],
    Role.ADMIN: [
        "Mutation.createHost", "Mutation.createSshKey", "Mutation.createToken", "Mutation.deleteHost",
        "Mutation.deleteSshKey", "Mutation.revokeToken", "Mutation.trustHostKey", "Mutation.updateHost",
        "Query.auditLog", "Query.sshKeys", "Query.tokens",
    ],
}  # fmt: skip


def roots(of: schema.Schema) -> Iterator[tuple[str, GraphQLField]]:
    for kind in (of._schema.query_type, of._schema.mutation_type, of._schema.subscription_type):
        assert kind is not None
        for name, field in kind.fields.items():
            yield f"{kind.name}.{name}", field


def test_every_field_of_the_roots_says_which_role_it_needs(executable_schema: schema.Schema) -> None:
    expected = {name: role for role, names in DECLARED.items() for name in names}
    assert {name: needs(field).role for name, field in roots(executable_schema)} == expected


def test_every_mutation_is_written_down(executable_schema: schema.Schema) -> None:
    recorded = {name for name, field in roots(executable_schema) if isinstance(needs(field), Recorded)}
    assert recorded == {name for name, _ in roots(executable_schema) if name.startswith("Mutation.")}


def test_every_event_of_every_subscription_is_checked(executable_schema: schema.Schema) -> None:
    subscriptions = {name: field for name, field in roots(executable_schema) if name.startswith("Subscription.")}
    assert subscriptions
    for name, field in subscriptions.items():
        assert isinstance(needs(field), Followed), name
        definition: Any = get_named_type(field.type).extensions["strawberry-definition"]
        assert issubclass(definition.origin, Event), name


def test_what_only_admins_may_see_is_reached_by_fields_for_admins_only(executable_schema: schema.Schema) -> None:
    implementations = executable_schema._schema.get_possible_types
    for name, field in roots(executable_schema):
        if name in BY_ID:
            continue  # see the next test
        reached: set[str] = set()
        pending = [get_named_type(field.type)]
        while pending:
            kind = pending.pop()
            if kind.name in reached or not isinstance(
                kind, GraphQLObjectType | GraphQLInterfaceType | GraphQLUnionType
            ):
                continue
            reached.add(kind.name)
            if not isinstance(kind, GraphQLObjectType):
                pending.extend(implementations(kind))
            if not isinstance(kind, GraphQLUnionType):
                pending.extend(get_named_type(below.type) for below in kind.fields.values())
        assert not reached & ADMINS_TYPES or needs(field).role is Role.ADMIN, name


@pytest.mark.parametrize("role", Role)
async def test_only_an_admin_gets_ssh_keys_tokens_and_the_audit_log_by_their_ids(api: Api, role: Role) -> None:
    key, (token, _) = await factories.ssh_key(api.db), await tokens.create(api.db, "ci")
    entry = AuditEntry(principal="ci", mutation="m", object_ids=[], outcome="OK")
    async with api.db.write() as session:
        session.add(entry)
    api.context.identify(Principal("me", role))
    wanted = {"SshKey": str(key.id), "Token": str(token.id), "AuditEntry": str(entry.id)}
    document = "query ($ids: [ID!]!, $id: ID!) { nodes(ids: $ids) { __typename id } node(id: $id) { id } }"
    told = await api.ask(document, ids=list(wanted.values()), id=str(token.id))
    if role is Role.ADMIN:
        assert told["nodes"] == [{"__typename": name, "id": key_id} for name, key_id in wanted.items()]
        assert told["node"] == {"id": str(token.id)}
    else:
        assert told == {"nodes": [None, None, None], "node": None}


@pytest.mark.parametrize("role", Role)
async def test_a_viewer_is_told_who_it_is(api: Api, role: Role) -> None:
    labels = None if role is Role.ADMIN else frozenset({"b", "a"})
    api.context.identify(Principal("me", role, labels))
    told = (await api.ask(f"{{ {ANY} }}"))["viewer"]
    assert told == {"name": "me", "role": role.value, "hostLabels": None if labels is None else ["a", "b"]}


async def test_what_is_forbidden_is_not_done_and_the_rest_is_answered(api: Api) -> None:
    api.context.identify(Principal("me", Role.VIEWER))
    name = (
        'mutation { createPackage(input: {name: "p", version: "1", composeFile: "services: {}"}) { package { id } } }'
    )
    error = await api.error(name)
    assert error["extensions"] == {"code": "FORBIDDEN", "status": 403}
    assert error["path"] == ["createPackage"]
    result = await api.execute("{ viewer { name } tokens { totalCount } }")
    assert result.errors is not None
    assert [each.path for each in result.errors] == [["tokens"]]
    assert (await api.ask("{ packages { totalCount } }"))["packages"]["totalCount"] == 0


OTHERS = {
    "host": "query($id: ID!) { host(id: $id) { id } }",
    "deployment": "query($id: ID!) { deployment(id: $id) { id } }",
    "run": "query($id: ID!) { run(id: $id) { id } }",
    "start": "mutation($id: ID!) { runDeployment(input: {deploymentId: $id}) { run { id } } }",
    "cancel": "mutation($id: ID!) { cancelRun(input: {runId: $id}) { run { id } } }",
    "delete": "mutation($id: ID!) { deleteDeployment(input: {deploymentId: $id}) { deletedDeploymentId } }",
}


async def _two_sites(api: Api) -> tuple[dict[str, str], dict[str, str]]:
    """The ids of what is on a host with label "ours", and of what is on another."""
    sites = []
    for label in ("ours", "theirs"):
        host = await factories.host(api.db, labels=["all", label])
        deployment = await factories.deployment(api.db, on=host)
        run = await factories.run(api.db, deployment, RunStatus.RUNNING)
        await factories.log(api.db, run, 2)
        ids = {"host": host.id, "deployment": deployment.id, "run": run.id}
        sites.append({name: str(value) for name, value in ids.items()})
    api.context.identify(Principal("me", Role.DEPLOYER, frozenset({"ours"})))
    return sites[0], sites[1]


@pytest.mark.parametrize("what", OTHERS)
async def test_what_is_on_other_hosts_is_not_there(api: Api, what: str) -> None:
    _, theirs = await _two_sites(api)
    key = theirs[{"start": "deployment", "delete": "deployment", "cancel": "run"}.get(what, what)]
    error, unknown = await api.error(OTHERS[what], id=key), await api.error(OTHERS[what], id=UNKNOWN[0])
    assert error["extensions"] == {"code": "NOT_FOUND", "status": 404}
    assert error["message"].replace(key, UNKNOWN[0]) == unknown["message"]
    async with api.context.everything.read() as session:
        run = await session.get_one(Run, UUID(theirs["run"]))
    assert (run.status, run.cancel_requested_at) == (RunStatus.RUNNING, None)


async def test_lists_have_what_is_on_the_tokens_hosts(api: Api) -> None:
    ours, theirs = await _two_sites(api)
    document = """query($ids: ID!) {
        hosts { nodes { id labels } totalCount } deployments { nodes { id } totalCount }
        packages { nodes { deployments { nodes { id } totalCount } } }
        runs { nodes { id } totalCount }
        node(id: $ids) { id }
    }"""
    told = await api.ask(document, ids=theirs["run"])
    assert told["hosts"] == {"nodes": [{"id": ours["host"], "labels": ["all", "ours"]}], "totalCount": 1}
    assert told["deployments"] == {"nodes": [{"id": ours["deployment"]}], "totalCount": 1}
    assert told["runs"] == {"nodes": [{"id": ours["run"]}], "totalCount": 1}
    below = [package["deployments"]["totalCount"] for package in told["packages"]["nodes"]]
    assert sorted(below) == [0, 1]
    assert told["node"] is None


async def test_what_is_on_other_hosts_is_not_found_by_its_name(api: Api) -> None:
    everything = api.db
    sites = await _two_sites(api)
    document = """query($host: String!, $project: String!) {
        hostByName(name: $host) { id } deploymentByName(host: $host, project: $project) { id }
    }"""
    for site, is_ours in zip(sites, (True, False), strict=True):
        host = await hosts.get(everything, site["host"])
        deployment = await deployments.get(everything, site["deployment"])
        told = await api.ask(document, host=host.name, project=deployment.project_name)
        found = {"hostByName": {"id": site["host"]}, "deploymentByName": {"id": site["deployment"]}}
        assert told == (found if is_ours else dict.fromkeys(found))


async def test_streams_tell_of_the_tokens_hosts_only(api: Api) -> None:
    ours, theirs = await _two_sites(api)
    for document, key in (
        ("subscription($id: ID!) { deploymentStatus(id: $id) { status } }", theirs["deployment"]),
        ("subscription($id: ID!) { runLog(runId: $id) { complete } }", theirs["run"]),
        ("subscription($id: ID!) { runChanged(id: $id) { at } }", theirs["run"]),
    ):
        assert (await api.subscription_error(document, id=key))["extensions"]["code"] == "NOT_FOUND"
    document = "subscription($after: String) { deploymentsChanged(after: $after) { deployment { id } } }"
    async with api.subscribe(document, after=CHANGES.cursor([0])) as events:
        assert await take(events, 2) == [{"deployment": {"id": ours["deployment"]}}] * 2
    async with api.subscribe(
        "subscription($id: ID!) { runLog(runId: $id) { entries { message } } }", id=ours["run"]
    ) as events:
        [first] = await take(events)
        assert len(first["entries"]) == 2


@pytest.mark.parametrize(
    "document",
    [
        "subscription($id: ID!) { it: deploymentStatus(id: $id) { status } }",
        "subscription($id: ID!) { it: runLog(runId: $id) { entries { message } } }",
        "subscription($id: ID!) { it: runChanged(id: $id) { run { status } } }",
    ],
    ids=["status", "log", "run"],
)
async def test_a_stream_of_one_row_ends_when_the_host_loses_the_label(api: Api, document: str) -> None:
    ours, _ = await _two_sites(api)
    key = ours["deployment" if "deploymentStatus" in document else "run"]
    stream = await api.schema.subscribe(document, variable_values={"id": key}, context_value=api.context)
    async with asyncio.timeout(TIMEOUT), aclosing(stream):
        first = await anext(stream)
        assert first.errors is None
        async with api.context.everything.write() as session:
            await session.execute(delete(HostLabel).where(HostLabel.host_id == UUID(ours["host"])))
        await _change(api, ours)
        ended = [result async for result in stream]
    [last] = ended
    assert isinstance(last, ExecutionResult)
    assert last.data is None
    assert [error.extensions for error in last.errors or []] == [{"code": "NOT_FOUND", "status": 404}]
    assert vars(api.context.broadcast)["_listeners"] == {}


async def test_a_stream_of_many_rows_skips_those_of_a_host_that_has_lost_the_label(api: Api) -> None:
    ours, _ = await _two_sites(api)
    other = await factories.deployment(
        api.context.everything, on=await factories.host(api.context.everything, ["ours"])
    )
    document = "subscription($after: String) { deploymentsChanged(after: $after) { deployment { id } } }"
    async with api.subscribe(document, after=CHANGES.cursor([0])) as events:
        # Both changes of our first deployment are read together, before the label is removed.
        assert await take(events) == [{"deployment": {"id": ours["deployment"]}}]
        async with api.context.everything.write() as session:
            await session.execute(delete(HostLabel).where(HostLabel.host_id == UUID(ours["host"])))
        await _change(api, ours)
        assert await take(events) == [{"deployment": {"id": str(other.id)}}]


async def _change(api: Api, site: dict[str, str]) -> None:
    """Let the run of a site say something and end."""
    db = api.context.everything
    async with db.write() as session:
        run = await session.get_one(Run, UUID(site["run"]))
        assert await status.finish(session, run.id, run.epoch, factories.end())
    await factories.log(db, run, 1, first=3)
    api.context.broadcast.notify(run.id, run.deployment_id, Everything.DEPLOYMENTS)


async def test_a_host_of_others_cannot_be_deployed_to(api: Api) -> None:
    _, theirs = await _two_sites(api)
    package = await factories.package(api.db)
    document = """mutation($host: ID!, $package: ID!) {
        createDeployment(input: {hostId: $host, packageId: $package}) { deployment { id } } }"""
    error = await api.error(document, host=theirs["host"], package=str(package.id))
    assert error["extensions"]["code"] == "HOST_NOT_FOUND"


DELETE_PACKAGE = "mutation($id: ID!) { deletePackage(input: {packageId: $id}) { deletedPackageId } }"


@pytest.mark.parametrize("others", [1, 3])
async def test_how_often_others_have_deployed_a_package_is_not_told(api: Api, others: int) -> None:
    package = await factories.package(api.db)
    for _ in range(others):
        await factories.deployment(api.db, of=package, on=await factories.host(api.db, labels=["theirs"]))
    api.context.identify(Principal("me", Role.DEPLOYER, frozenset({"ours"})))
    error = await api.error(DELETE_PACKAGE, id=str(package.id))
    assert error["message"] == f"Package '{package.id}' is in use by deployments that you cannot see."
    assert error["extensions"] == {"code": "IN_USE", "status": 400}


@pytest.mark.parametrize("own", [1, 2])
async def test_of_deployments_that_use_a_package_those_are_told_that_the_token_sees(api: Api, own: int) -> None:
    package = await factories.package(api.db)
    theirs, ours = [await factories.host(api.db, labels=[label]) for label in ("theirs", "ours")]
    for _ in range(2):
        await factories.deployment(api.db, of=package, on=theirs)
    mine = [await factories.deployment(api.db, of=package, on=ours) for _ in range(own)]
    first = str(mine[0].id)
    api.context.identify(Principal("me", Role.DEPLOYER, frozenset({"ours"})))
    error = await api.error(DELETE_PACKAGE, id=str(package.id))
    users = f"deployment '{first}'" if own == 1 else f"2 deployments; the first is '{first}'"
    assert error["message"] == f"Package '{package.id}' is in use by {users}."
    assert error["extensions"] == {"code": "IN_USE", "status": 400, "count": own, "deploymentId": first}


async def test_a_host_and_a_key_say_how_many_use_them_and_which_is_the_first(api: Api) -> None:
    key = await factories.ssh_key(api.db)
    host = await factories.host(api.db, ssh_key_id=key.id)
    first, _ = [await factories.deployment(api.db, on=host) for _ in range(2)]
    document = "mutation($id: ID!) { deleteHost(input: {hostId: $id}) { deletedHostId } }"
    extensions = (await api.error(document, id=str(host.id)))["extensions"]
    assert extensions == {"code": "IN_USE", "status": 400, "count": 2, "deploymentId": str(first.id)}
    document = "mutation($id: ID!) { deleteSshKey(input: {sshKeyId: $id}) { deletedSshKeyId } }"
    extensions = (await api.error(document, id=str(key.id)))["extensions"]
    assert extensions == {"code": "IN_USE", "status": 400, "count": 1, "hostId": str(host.id)}


async def test_a_place_in_the_queue_is_one_among_all(api: Api) -> None:
    theirs = await factories.deployment(api.db, on=await factories.host(api.db, labels=["theirs"]))
    await factories.run(api.db, theirs)
    ours = await factories.run(
        api.db, await factories.deployment(api.db, on=await factories.host(api.db, labels=["o"]))
    )
    api.context.identify(Principal("me", Role.VIEWER, frozenset({"o"})))
    told = await api.ask("query($id: ID!) { run(id: $id) { queuePosition } }", id=str(ours.id))
    assert told["run"]["queuePosition"] == 2


CREATE_HOST = "mutation($input: CreateHostInput!) { createHost(input: $input) { host { id labels } } }"
UPDATE_HOST = "mutation($input: UpdateHostInput!) { updateHost(input: $input) { host { labels } } }"


async def test_labels_of_a_host_are_set_kept_and_replaced(api: Api) -> None:
    given = {"name": "web", "address": "web.example", "labels": ["b", "a", "b"]}
    host = (await api.ask(CREATE_HOST, input=given))["createHost"]["host"]
    assert host["labels"] == ["a", "b"]
    for change, labels in (({"port": 23}, ["a", "b"]), ({"labels": ["c"]}, ["c"]), ({"labels": []}, [])):
        told = await api.ask(UPDATE_HOST, input={"hostId": host["id"], **change})
        assert told["updateHost"]["host"]["labels"] == labels


@pytest.mark.parametrize("label", ["", "A", "-a", "a b", "a" * 64, "ä", "a\n", "{{ 1 }}"])
async def test_a_label_keeps_the_rules(api: Api, label: str) -> None:
    error = await api.error(CREATE_HOST, input={"name": "web", "address": "web.example", "labels": ["ok", label]})
    assert error["extensions"]["problems"][0]["path"] == ["input", "labels", 1]
    assert error["extensions"]["problems"][0]["code"] == "LABEL"
