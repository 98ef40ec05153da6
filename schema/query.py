"""The queries: each calls one resolver."""

from collections.abc import Sequence
from typing import Annotated

import strawberry
from strawberry import UNSET

from db.models import Role
from resolvers import audit, deployments, hosts, nodes, packages, runs, ssh_keys, tokens
from schema import filters
from schema.context import Info
from schema.filters import HostFilter, PackageFilter
from schema.permission import field
from schema.types import (
    After,
    AuditEntry,
    Before,
    Connection,
    Deployment,
    First,
    Host,
    Last,
    Node,
    Ordered,
    Package,
    Run,
    SshKey,
    Token,
    Viewer,
    WhichDeployments,
    WhichRuns,
    paging,
    to_node,
)

VIEWER, ADMIN = Role.VIEWER, Role.ADMIN

Id = Annotated[strawberry.ID, strawberry.argument(description="The id of the object.")]
Ids = Annotated[list[strawberry.ID], strawberry.argument(description="At most 100 ids.")]
HostName = Annotated[str, strawberry.argument(description="The exact name of the host.")]
ProjectName = Annotated[str, strawberry.argument(description="The exact `projectName` of the deployment.")]
WhichHosts = Annotated[HostFilter | None, strawberry.argument(description="Selects hosts; null: all.")]
WhichPackages = Annotated[PackageFilter | None, strawberry.argument(description="Selects packages; null: all.")]


@strawberry.type(description="The queries.")
class Query:
    @field(VIEWER, "The token that sent the request, and what it is allowed to do.")
    async def viewer(self, info: Info) -> Viewer:
        asker = info.context.asker
        return Viewer(
            name=asker.name, role=asker.role, host_labels=None if asker.labels is None else sorted(asker.labels)
        )

    @field(ADMIN, "The access tokens, including revoked ones, newest first.")
    async def tokens(
        self, info: Info, first: First = UNSET, after: After = UNSET, last: Last = UNSET, before: Before = UNSET
    ) -> Connection[Token]:
        db, listing = info.context.db, tokens.TOKENS
        page = await listing.page(db, listing.range(paging(first, after, last, before)))
        return Connection.of(page, Token.from_model, lambda: listing.count(db))

    @field(ADMIN, "Every requested mutation, newest first.")
    async def audit_log(
        self, info: Info, first: First = UNSET, after: After = UNSET, last: Last = UNSET, before: Before = UNSET
    ) -> Connection[AuditEntry]:
        db, listing = info.context.db, audit.AUDIT
        page = await listing.page(db, listing.range(paging(first, after, last, before)))
        return Connection.of(page, AuditEntry.from_model, lambda: listing.count(db))

    @field(VIEWER, "The node with this id; null if there is none, or if the token has no access to it.")
    async def node(self, info: Info, id: Id) -> Node | None:  # noqa: A002 - the API's name
        [found] = await _nodes(info, [id])
        return found

    @field(
        VIEWER,
        "The node with each id, in the order of `ids`; null if there is none, or if the token has no access to it.",
    )
    async def nodes(self, info: Info, ids: Ids) -> list[Node | None]:
        return await _nodes(info, ids)

    @field(VIEWER, "The deployments, newest first unless ordered otherwise.")
    async def deployments(  # noqa: PLR0917 - called by Strawberry, by name
        self,
        info: Info,
        first: First = UNSET,
        after: After = UNSET,
        last: Last = UNSET,
        before: Before = UNSET,
        filter: WhichDeployments = UNSET,  # noqa: A002 - the API's name
        order_by: Ordered = UNSET,
    ) -> Connection[Deployment]:
        db, narrowed = info.context.db, filters.of_deployments(filter)
        arguments, order = paging(first, after, last, before), filters.order_of_deployments(order_by)
        page = await deployments.list_page(db, arguments, narrowed, order)
        return Connection.of(page, Deployment.from_model, lambda: deployments.count(db, narrowed))

    @field(VIEWER, "One deployment.  Errors: NOT_FOUND.")
    async def deployment(self, info: Info, id: Id) -> Deployment | None:  # noqa: A002
        return Deployment.from_model(await deployments.get(info.context.db, id))

    @field(
        VIEWER,
        "The deployment of this project on this host; null if there is none, or if the token has no access to it.",
    )
    async def deployment_by_name(self, info: Info, host: HostName, project: ProjectName) -> Deployment | None:
        found = await deployments.get_by_name(info.context.db, host, project)
        return None if found is None else Deployment.from_model(found)

    @field(VIEWER, "The hosts, newest first.")
    async def hosts(  # noqa: PLR0917 - called by Strawberry, by name
        self,
        info: Info,
        first: First = UNSET,
        after: After = UNSET,
        last: Last = UNSET,
        before: Before = UNSET,
        filter: WhichHosts = UNSET,  # noqa: A002 - the API's name
    ) -> Connection[Host]:
        db, listing, where = info.context.db, hosts.HOSTS, filters.of_hosts(filter).conditions()
        page = await listing.page(db, listing.range(paging(first, after, last, before)), *where)
        return Connection.of(page, Host.from_model, lambda: listing.count(db, *where))

    @field(ADMIN, "The stored private keys for logins to hosts, newest first.")
    async def ssh_keys(
        self, info: Info, first: First = UNSET, after: After = UNSET, last: Last = UNSET, before: Before = UNSET
    ) -> Connection[SshKey]:
        db, listing = info.context.db, ssh_keys.SSH_KEYS
        page = await listing.page(db, listing.range(paging(first, after, last, before)))
        return Connection.of(page, SshKey.from_model, lambda: listing.count(db))

    @field(VIEWER, "One host.  Errors: NOT_FOUND.")
    async def host(self, info: Info, id: Id) -> Host | None:  # noqa: A002
        return Host.from_model(await hosts.get(info.context.db, id))

    @field(VIEWER, "The host with this name; null if there is none, or if the token has no access to it.")
    async def host_by_name(self, info: Info, name: HostName) -> Host | None:
        found = await hosts.get_by_name(info.context.db, name)
        return None if found is None else Host.from_model(found)

    @field(VIEWER, "The packages, newest first.")
    async def packages(  # noqa: PLR0917 - called by Strawberry, by name
        self,
        info: Info,
        first: First = UNSET,
        after: After = UNSET,
        last: Last = UNSET,
        before: Before = UNSET,
        filter: WhichPackages = UNSET,  # noqa: A002 - the API's name
    ) -> Connection[Package]:
        db, listing, where = info.context.db, packages.PACKAGES, filters.of_packages(filter).conditions()
        page = await listing.page(db, listing.range(paging(first, after, last, before)), *where)
        return Connection.of(page, Package.from_model, lambda: listing.count(db, *where))

    @field(VIEWER, "One package.  Errors: NOT_FOUND.")
    async def package(self, info: Info, id: Id) -> Package | None:  # noqa: A002
        return Package.from_model(await packages.get(info.context.db, id))

    @field(VIEWER, "The runs of all deployments, newest first.")
    async def runs(  # noqa: PLR0917 - called by Strawberry, by name
        self,
        info: Info,
        first: First = UNSET,
        after: After = UNSET,
        last: Last = UNSET,
        before: Before = UNSET,
        filter: WhichRuns = UNSET,  # noqa: A002 - the API's name
    ) -> Connection[Run]:
        db, where = info.context.db, filters.of_runs(filter).conditions()
        page = await runs.RUNS.page(db, runs.RUNS.range(paging(first, after, last, before)), *where)
        return Connection.of(page, Run.from_model, lambda: runs.RUNS.count(db, *where))

    @field(VIEWER, "One run.  Errors: NOT_FOUND.")
    async def run(self, info: Info, id: Id) -> Run | None:  # noqa: A002
        return Run.from_model(await runs.get(info.context.db, id))


async def _nodes(info: Info, node_ids: Sequence[str]) -> list[Node | None]:
    context = info.context
    rows = await nodes.get_many(context.db, node_ids, for_admin=context.asker.may(ADMIN))
    return [None if row is None else to_node(row) for row in rows]
