"""The types of the API, made from models."""

# Longer than 300 lines: these types refer to each other in circles, which modules of them could not import.

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Annotated, Any, Generic, Self, TypeVar
from uuid import UUID

import strawberry
from strawberry import UNSET

from db import containers, models
from resolvers import deployments, nodes, runs
from resolvers.paging import Arguments, Filter, Listing
from resolvers.paging import Page as ModelPage
from runner.ssh import known_hosts
from runner.store import Place
from schema import enums, filters
from schema.context import Below, Content, FileOfSize, Info
from schema.filters import DeploymentFilter, DeploymentOrder, RunFilter

First = Annotated[
    int | None, strawberry.argument(description="The number of items from the start: 0 to 100, default 20.")
]
After = Annotated[str | None, strawberry.argument(description="Return items after this cursor.")]
Last = Annotated[
    int | None, strawberry.argument(description="The number of items from the end: 0 to 100.  Not with `first`.")
]
Before = Annotated[str | None, strawberry.argument(description="Return items before this cursor.")]

WhichDeployments = Annotated[
    DeploymentFilter | None, strawberry.argument(description="Selects deployments; null: all.")
]
Ordered = Annotated[DeploymentOrder | None, strawberry.argument(description="The order; null: newest first.")]
WhichRuns = Annotated[RunFilter | None, strawberry.argument(description="Selects runs; null: all.")]

NodeType = TypeVar("NodeType")
Model = TypeVar("Model", bound=models.Base)


@strawberry.type(description="The position of a page in its list.")
class PageInfo:
    has_next_page: bool = strawberry.field(description="Whether there are items after the page.")
    has_previous_page: bool = strawberry.field(description="Whether there are items before the page.")
    start_cursor: str | None = strawberry.field(description="The cursor of the first edge; null if the page is empty.")
    end_cursor: str | None = strawberry.field(description="The cursor of the last edge; null if the page is empty.")


@strawberry.type(description="An item of a list, with its cursor.")
class Edge(Generic[NodeType]):
    cursor: str = strawberry.field(description="The position of the item, for `after` and `before`.")
    node: NodeType = strawberry.field(description="The item.")


@strawberry.type(description="A page of a list.")
class Connection(Generic[NodeType]):
    edges: list[Edge[NodeType]] = strawberry.field(description="The items of the page, with cursors.")
    nodes: list[NodeType] = strawberry.field(description="The items of the page, without cursors.")
    page_info: PageInfo = strawberry.field(description="The position of the page.")
    count: strawberry.Private[Callable[[], Awaitable[int]]]

    @strawberry.field(description="The number of items in the whole list.")
    async def total_count(self) -> int:
        return await self.count()

    @classmethod
    def of(
        cls,
        page: ModelPage[Model],
        from_model: Callable[[Model], NodeType],
        count: Callable[[], Awaitable[int]],
    ) -> Self:
        """Return the connection for `page`; `count` is called only when a client selects `totalCount`."""
        edges = [Edge(cursor=cursor, node=from_model(row)) for cursor, row in page.rows]
        info = PageInfo(
            has_next_page=page.has_next,
            has_previous_page=page.has_previous,
            start_cursor=edges[0].cursor if edges else None,
            end_cursor=edges[-1].cursor if edges else None,
        )
        return cls(edges=edges, nodes=[edge.node for edge in edges], page_info=info, count=count)


def paging(first: int | None, after: str | None, last: int | None, before: str | None) -> Arguments:
    """Return the paging arguments of a connection; omitted ones are None."""
    given = [None if value is UNSET else value for value in (first, after, last, before)]
    return Arguments(*given)  # type: ignore[arg-type] # in the order of the fields


async def _below(
    info: Info,
    listing: Listing[Model],
    parent: UUID,
    arguments: Arguments,
    from_model: Callable[[Model], NodeType],
    *,
    narrowed: Filter | None = None,
) -> Connection[NodeType]:
    """Return a page of one parent, loaded together with those of the operation's other parents."""
    loaders = info.context.loaders
    page = await loaders.page.load(Below(listing, parent, listing.range(arguments), narrowed))
    return Connection.of(page, from_model, lambda: loaders.count.load(Below(listing, parent, narrowed=narrowed)))


@strawberry.interface(description="An object with an id of its own.")
class Node:
    id: strawberry.ID = strawberry.field(description="A UUIDv7 as text, globally unique.")


@strawberry.type(description="A host key, or the key of a certificate authority, that the server trusts for a host.")
class PinnedKey:
    type: str = strawberry.field(description="OpenSSH's name of the key type: ssh-ed25519, …")
    fingerprint: str = strawberry.field(description="SHA256 fingerprint, as printed by ssh-keygen.")
    is_authority: bool = strawberry.field(
        description="Whether it is the key of a certificate authority that signs host keys, not the host's own key."
    )


@strawberry.type(description="A private key for logins to hosts, stored encrypted in daos.")
class SshKey(Node):
    name: str = strawberry.field(description="Unique among SSH keys.")
    public_key: str = strawberry.field(
        description="The public key, as a line for `~/.ssh/authorized_keys` of the user on the host."
    )
    fingerprint: str = strawberry.field(description="SHA256 fingerprint of the public key, as printed by ssh-keygen.")
    created_at: datetime = strawberry.field(description="When the key was stored.")

    @classmethod
    def from_model(cls, key: models.SshKey) -> "SshKey":
        return cls(
            id=strawberry.ID(str(key.id)),
            name=key.name,
            public_key=key.public_key,
            fingerprint=key.fingerprint,
            created_at=key.created_at,
        )


@strawberry.type(description="A machine that is deployed to.")
class Host(Node):
    name: str = strawberry.field(description="Unique among hosts.")
    transport: enums.HostTransport = strawberry.field(description="How the server connects to the host.")
    address: str | None = strawberry.field(description="DNS name or IP address; null for LOCAL.")
    port: int = strawberry.field(description="The port of sshd on the host.")
    user: str = strawberry.field(description="The user to log in as.")
    ssh_key_path: str | None = strawberry.field(
        description="The path of the private key on the server; it is checked when a run starts."
    )
    host_key_fingerprint: str | None = strawberry.field(
        description="SHA256 fingerprint of the first pinned key; null before the first contact, or if only "
        "certificate authorities are pinned."
    )
    pinned_keys: list[PinnedKey] = strawberry.field(
        description="All keys that the server trusts for the host: its own, and those of certificate authorities."
    )
    created_at: datetime = strawberry.field(description="When the host was created.")
    updated_at: datetime = strawberry.field(description="When the host was last changed.")
    key: strawberry.Private[UUID]
    stored_ssh_key_id: strawberry.Private[UUID | None]

    @classmethod
    def from_model(cls, host: models.Host) -> "Host":
        return cls(
            id=strawberry.ID(str(host.id)),
            name=host.name,
            transport=host.transport,
            address=host.address,
            port=host.port,
            user=host.user,
            ssh_key_path=host.ssh_key_path,
            host_key_fingerprint=host.host_key_fingerprint,
            pinned_keys=[
                PinnedKey(type=key.type, fingerprint=key.fingerprint, is_authority=key.is_authority)
                for key in known_hosts.stored(host.known_hosts)
            ],
            created_at=host.created_at,
            updated_at=host.updated_at,
            key=host.id,
            stored_ssh_key_id=host.ssh_key_id,
        )

    @strawberry.field(description="The stored key used to log in; null if that is `sshKeyPath`, or if there is none.")
    async def ssh_key(self, info: Info) -> SshKey | None:
        if self.stored_ssh_key_id is None:
            return None
        return SshKey.from_model(await info.context.loaders.ssh_key.load(self.stored_ssh_key_id))

    @strawberry.field(description="Words that can limit tokens to some hosts, sorted.")
    async def labels(self, info: Info) -> list[str]:
        return await info.context.loaders.labels.load(self.key)

    @strawberry.field(description="The deployments on this host, newest first unless ordered otherwise.")
    async def deployments(  # noqa: PLR0917 - called by Strawberry, by name
        self,
        info: Info,
        first: First = UNSET,
        after: After = UNSET,
        last: Last = UNSET,
        before: Before = UNSET,
        filter: WhichDeployments = UNSET,  # noqa: A002 - the API's name
        order_by: Ordered = UNSET,
    ) -> Connection["Deployment"]:
        arguments, narrowed = paging(first, after, last, before), filters.of_deployments(filter)
        listing = deployments.ON_HOST[filters.order_of_deployments(order_by)]
        return await _below(info, listing, self.key, arguments, Deployment.from_model, narrowed=narrowed)


@strawberry.type(description="A file of a package besides compose.yaml: text, or base64 if it is not UTF-8.")
class PackageFile:
    path: str = strawberry.field(description="Relative to the project's directory.")
    size: int = strawberry.field(description="The size in bytes.")
    mode: str = strawberry.field(description="The permissions on the host, four octal digits: 0644.")
    only_if_missing: bool = strawberry.field(
        description="Whether the file is created only if the host does not have it, because containers write to it."
    )
    package_key: strawberry.Private[UUID]

    @classmethod
    def from_model(cls, file: models.PackageFile) -> "PackageFile":
        return cls(
            path=file.path,
            size=file.size,
            mode=f"{file.mode:04o}",
            only_if_missing=file.only_if_missing,
            package_key=file.package_id,
        )

    # Methods, so that listing paths does not read, hash, or decode any content.
    @strawberry.field(description="SHA-256 of the bytes, in hexadecimal.")
    async def sha256(self, info: Info) -> str:
        return (await self._content(info)).sha256

    @strawberry.field(description="The content as text; null if it is not UTF-8.")
    async def text(self, info: Info) -> str | None:
        return (await self._content(info)).text

    @strawberry.field(description="The content in Base64 if it is not UTF-8; null if there is `text`.")
    async def base64(self, info: Info) -> str | None:
        return (await self._content(info)).base64

    async def _content(self, info: Info) -> Content:
        return await info.context.loaders.contents.load(FileOfSize((self.package_key, self.path), self.size))


@strawberry.type(description="A login at a registry.  Its password is stored encrypted and never shown.")
class RegistryLogin:
    registry: str = strawberry.field(description="A host, or a host and a port: registry.example.org:5000.")
    username: str = strawberry.field(description="The user name.")


@strawberry.type(description="What is deployed: a Docker Compose project.  A package never changes after its creation.")
class Package(Node):
    name: str = strawberry.field(description="Unique together with `version`.")
    version: str = strawberry.field(description="Any text; a new version is a new package.")
    created_at: datetime = strawberry.field(description="When the package was created.")
    updated_at: datetime = strawberry.field(description="When the package was last changed.")
    key: strawberry.Private[UUID]

    @classmethod
    def from_model(cls, package: models.Package) -> "Package":
        return cls(
            id=strawberry.ID(str(package.id)),
            name=package.name,
            version=package.version,
            created_at=package.created_at,
            updated_at=package.updated_at,
            key=package.id,
        )

    @strawberry.field(description="The text of compose.yaml.")
    async def compose_file(self, info: Info) -> str:
        return await info.context.loaders.compose_file.load(self.key)

    @strawberry.field(description="Further files of the project, sorted by path.")
    async def files(self, info: Info) -> list[PackageFile]:
        files = await info.context.loaders.files.load(self.key)
        return [PackageFile.from_model(file) for file in files]

    @strawberry.field(description="The logins used to pull its images, sorted by registry.")
    async def registry_logins(self, info: Info) -> list[RegistryLogin]:
        logins = await info.context.loaders.logins.load(self.key)
        return [RegistryLogin(registry=login.address, username=login.username) for login in logins]

    @strawberry.field(description="The deployments of this package, newest first unless ordered otherwise.")
    async def deployments(  # noqa: PLR0917 - called by Strawberry, by name
        self,
        info: Info,
        first: First = UNSET,
        after: After = UNSET,
        last: Last = UNSET,
        before: Before = UNSET,
        filter: WhichDeployments = UNSET,  # noqa: A002 - the API's name
        order_by: Ordered = UNSET,
    ) -> Connection["Deployment"]:
        arguments, narrowed = paging(first, after, last, before), filters.of_deployments(filter)
        listing = deployments.OF_PACKAGE[filters.order_of_deployments(order_by)]
        return await _below(info, listing, self.key, arguments, Deployment.from_model, narrowed=narrowed)


@strawberry.type(description="A variable of a deployment, which Compose reads from `.env`.")
class Variable:
    name: str = strawberry.field(description="Unique within the deployment.")
    value: str | None = strawberry.field(description="The value; null if the variable is secret.")
    secret: bool = strawberry.field(description="Whether the value is stored encrypted and never shown.")


@strawberry.type(description="A container of the project, as reported by Docker.")
class Container:
    name: str = strawberry.field(description="The name of the container.")
    service: str = strawberry.field(description="The name of its service in the Compose file.")
    image: str = strawberry.field(description="The image that the container was created from.")
    state: enums.ContainerState = strawberry.field(description="The state of the container.")
    health: enums.ContainerHealth | None = strawberry.field(
        description="The result of the health check; null without one."
    )
    exit_code: int | None = strawberry.field(description="The exit status; null while the container runs.")
    restarts: int = strawberry.field(description="How many times Docker has restarted it.")
    started_at: datetime | None = strawberry.field(
        description="When the container was last started; null if it never was."
    )
    ports: list[str] = strawberry.field(description="The ports as Docker shows them: 127.0.0.1:8080->80/tcp.")

    @classmethod
    def from_container(cls, container: containers.Container) -> "Container":
        return cls(
            name=container.name,
            service=container.service,
            image=container.image,
            state=container.state,
            health=container.health,
            exit_code=container.exit_code,
            restarts=container.restarts,
            started_at=container.started_at,
            ports=list(container.ports),
        )


@strawberry.type(description="An entry of a run's log.")
class LogEntry:
    sequence: int = strawberry.field(description="1, 2, 3 … within its run.")
    at: datetime = strawberry.field(description="When the entry was logged.")
    level: enums.LogLevel = strawberry.field(description="The severity.")
    phase: enums.Phase | None = strawberry.field(description="The phase that logged it; null if the server did.")
    message: str = strawberry.field(description="The text.  Values of secret variables are shown as ********.")

    @classmethod
    def from_model(cls, entry: models.LogEntry) -> "LogEntry":
        return cls(sequence=entry.sequence, at=entry.at, level=entry.level, phase=entry.phase, message=entry.message)


@strawberry.type(description="A phase of a run.")
class RunPhase:
    phase: enums.Phase = strawberry.field(description="The phase.")
    started_at: datetime | None = strawberry.field(description="When it began; null if it was skipped.")
    finished_at: datetime | None = strawberry.field(
        description="When it ended; null before that, or if it was skipped."
    )
    outcome: enums.PhaseOutcome | None = strawberry.field(description="How it ended; null before that.")

    @classmethod
    def from_model(cls, row: models.RunPhase) -> "RunPhase":
        assert row.phase is not None  # the resolver omits phases that it does not know
        return cls(phase=row.phase, started_at=row.started_at, finished_at=row.finished_at, outcome=row.outcome)


@strawberry.type(description="One execution of a deployment.")
class Run(Node):
    number: int = strawberry.field(description="1, 2, 3 … within its deployment.")
    action: enums.RunAction = strawberry.field(description="What the run does.")
    trigger: enums.RunTrigger = strawberry.field(description="What caused the run.")
    created_by: str = strawberry.field(
        description="The name of the token that started the run, as in the audit log; `unknown` if it was not recorded."
    )
    status: enums.RunStatus = strawberry.field(description="The status of the run.")
    reason: enums.FailureReason | None = strawberry.field(description="Why the run did not succeed; otherwise null.")
    message: str | None = strawberry.field(description="How the run ended, in one sentence; null before that.")
    progress: float = strawberry.field(description="The progress, from 0 to 1.")
    priority: int = strawberry.field(description="-100 to 100; runs with a higher priority start first.")
    queued_at: datetime = strawberry.field(description="When the run was accepted.")
    started_at: datetime | None = strawberry.field(description="When the run started.")
    finished_at: datetime | None = strawberry.field(description="When the run ended.")
    cancel_requested_at: datetime | None = strawberry.field(
        description="When cancellation was requested; the status becomes CANCELED when all work has stopped."
    )
    warnings: list[str] = strawberry.field(
        description="Warnings of Compose and of daos, in the order in which they occurred."
    )
    containers: list[Container] = strawberry.field(
        description="The containers that Docker reports on the host after the run."
    )
    key: strawberry.Private[UUID]
    deployment_key: strawberry.Private[UUID]

    @classmethod
    def from_model(cls, run: models.Run) -> "Run":
        return cls(
            id=strawberry.ID(str(run.id)),
            number=run.number,
            action=run.action,
            trigger=run.trigger,
            created_by=run.created_by,
            status=run.status,
            reason=run.reason,
            message=run.message,
            progress=run.progress,
            priority=run.priority,
            queued_at=run.queued_at,
            started_at=run.started_at,
            finished_at=run.finished_at,
            cancel_requested_at=run.cancel_requested_at,
            warnings=run.warnings,
            containers=[Container.from_container(container) for container in run.containers],
            key=run.id,
            deployment_key=run.deployment_id,
        )

    @strawberry.field(
        description="The position in the queue: 1 is next; null if the run is not queued.  Runs whose hosts have free "
        "capacity come first, by priority and age, then the others."
    )
    async def queue_position(self, info: Info) -> int | None:
        place = await _place(info, self)
        return None if place is None else place.position

    @strawberry.field(description="What the run is waiting for; null if it is not queued or is about to start.")
    async def blocked_by(self, info: Info) -> enums.RunBlocker | None:
        place = await _place(info, self)
        return None if place is None else place.blocked_by

    @strawberry.field(description="The deployment that was run.")
    async def deployment(self, info: Info) -> "Deployment":
        return Deployment.from_model(await info.context.loaders.deployment.load(self.deployment_key))

    @strawberry.field(
        description="The phases in order: those that have begun or were skipped, and after the end of the run all "
        "phases of its action.  Empty for runs of releases that did not record phases."
    )
    async def phases(self, info: Info) -> list[RunPhase]:
        return [RunPhase.from_model(row) for row in await info.context.loaders.phases.load(self.key)]

    @strawberry.field(description="The run's log, oldest first.")
    async def log(
        self, info: Info, first: First = UNSET, after: After = UNSET, last: Last = UNSET, before: Before = UNSET
    ) -> Connection[LogEntry]:
        return await _below(info, runs.LOG, self.key, paging(first, after, last, before), LogEntry.from_model)


async def _place(info: Info, run: Run) -> Place | None:
    return await info.context.loaders.place.load(run.key) if run.status is enums.RunStatus.QUEUED else None


@strawberry.type(description="A package on a host.")
class Deployment(Node):
    status: enums.DeploymentStatus = strawberry.field(description="The status of the deployment.")
    project_name: str = strawberry.field(description="The Docker Compose project name on the host, unique there.")
    created_at: datetime = strawberry.field(description="When the deployment was created.")
    updated_at: datetime = strawberry.field(description="When the status last changed.")
    key: strawberry.Private[UUID]
    host_key: strawberry.Private[UUID]
    package_key: strawberry.Private[UUID]
    current_key: strawberry.Private[UUID | None]

    @classmethod
    def from_model(cls, deployment: models.Deployment) -> "Deployment":
        return cls(
            id=strawberry.ID(str(deployment.id)),
            status=deployment.status,
            project_name=deployment.project_name,
            created_at=deployment.created_at,
            updated_at=deployment.updated_at,
            key=deployment.id,
            host_key=deployment.host_id,
            package_key=deployment.package_id,
            current_key=deployment.current_run_id,
        )

    @strawberry.field(description="The host that the package is deployed to.")
    async def host(self, info: Info) -> Host:
        return Host.from_model(await info.context.loaders.host.load(self.host_key))

    @strawberry.field(description="The package that is deployed.")
    async def package(self, info: Info) -> Package:
        return Package.from_model(await info.context.loaders.package.load(self.package_key))

    @strawberry.field(description="The variables, sorted by name.")
    async def variables(self, info: Info) -> list[Variable]:
        variables = await info.context.loaders.variables.load(self.key)
        return [Variable(name=variable.name, value=variable.value, secret=variable.secret) for variable in variables]

    @strawberry.field(
        description="The last run that began Up and whose content is on the host, even if it FAILED; unchanged by a "
        "failure before Up; null after DOWN and before the first Up."
    )
    async def current(self, info: Info) -> Run | None:
        if self.current_key is None:
            return None
        run = await info.context.loaders.run.load(self.current_key)
        return None if run is None else Run.from_model(run)

    @strawberry.field(
        description="Names of variables that the Compose files use and that have neither value nor default, sorted.  "
        "Compose treats them as blank, or fails if the files require them; a variable with an empty value is not "
        "missing."
    )
    async def missing_variables(self, info: Info) -> list[str]:
        return await info.context.loaders.missing_variables.load(self.key)

    @strawberry.field(description="The newest run; null if there is none.")
    async def latest_run(self, info: Info) -> Run | None:
        run = await info.context.loaders.latest_run.load(self.key)
        return None if run is None else Run.from_model(run)

    @strawberry.field(description="The runs, newest first.")
    async def runs(  # noqa: PLR0917 - called by Strawberry, by name
        self,
        info: Info,
        first: First = UNSET,
        after: After = UNSET,
        last: Last = UNSET,
        before: Before = UNSET,
        filter: WhichRuns = UNSET,  # noqa: A002 - the API's name
    ) -> Connection[Run]:
        arguments = paging(first, after, last, before)
        return await _below(
            info, runs.OF_DEPLOYMENT, self.key, arguments, Run.from_model, narrowed=filters.of_runs(filter)
        )

    @strawberry.field(description="The log entries of all runs, oldest first.")
    async def logs(
        self, info: Info, first: First = UNSET, after: After = UNSET, last: Last = UNSET, before: Before = UNSET
    ) -> Connection[LogEntry]:
        arguments = paging(first, after, last, before)
        return await _below(info, runs.DEPLOYMENT_LOG, self.key, arguments, LogEntry.from_model)


@strawberry.type(description="The token that sent the request.")
class Viewer:
    name: str = strawberry.field(description="The token's name.")
    role: enums.Role = strawberry.field(description="What the token is allowed to do.")
    host_labels: list[str] | None = strawberry.field(
        description="The token has access to hosts with one of these labels and to what is on them; null: all hosts."
    )


@strawberry.type(description="An access token.  The secret is shown only once, when the token is created.")
class Token(Node):
    name: str = strawberry.field(description="Unique among tokens, including revoked ones.")
    role: enums.Role = strawberry.field(description="What the token is allowed to do.")
    host_labels: list[str] | None = strawberry.field(
        description="The token has access to hosts with one of these labels and to what is on them; null: all hosts."
    )
    created_at: datetime = strawberry.field(description="When the token was created.")
    expires_at: datetime | None = strawberry.field(description="When the token expires; null: never.")
    revoked_at: datetime | None = strawberry.field(description="When the token was revoked; otherwise null.")

    @classmethod
    def from_model(cls, token: models.Token) -> "Token":
        return cls(
            id=strawberry.ID(str(token.id)),
            name=token.name,
            role=token.role,
            host_labels=token.host_labels,
            created_at=token.created_at,
            expires_at=token.expires_at,
            revoked_at=token.revoked_at,
        )


@strawberry.type(description="A requested mutation, whether it succeeded or not.")
class AuditEntry(Node):
    at: datetime = strawberry.field(description="When it was requested.")
    principal: str = strawberry.field(description="The name of the token.")
    token_id: strawberry.ID | None = strawberry.field(
        description="The token's id; null for the admin token, a token of an OpenID Connect issuer, and the command "
        "line."
    )
    address: str | None = strawberry.field(description="The client address of the request; null for the command line.")
    mutation: str = strawberry.field(description="The name of the mutation.")
    object_ids: list[str] = strawberry.field(
        description="The ids in its input, and those of the objects that it created."
    )
    outcome: str = strawberry.field(description="OK, or the code of the error.")

    @classmethod
    def from_model(cls, entry: models.AuditEntry) -> "AuditEntry":
        return cls(
            id=strawberry.ID(str(entry.id)),
            at=entry.at,
            principal=entry.principal,
            token_id=None if entry.token_id is None else strawberry.ID(str(entry.token_id)),
            address=entry.address,
            mutation=entry.mutation,
            object_ids=entry.object_ids,
            outcome=entry.outcome,
        )


_FROM_MODEL: dict[type[nodes.Node], Callable[[Any], Node]] = {
    models.Deployment: Deployment.from_model,
    models.Run: Run.from_model,
    models.Host: Host.from_model,
    models.Package: Package.from_model,
    models.SshKey: SshKey.from_model,
    models.Token: Token.from_model,
    models.AuditEntry: AuditEntry.from_model,
}


def to_node(row: nodes.Node) -> Node:
    """Return the API type for the row."""
    return _FROM_MODEL[type(row)](row)
