"""The tables.  The docstring of a class describes one row.

Ids are UUIDv7, so that sorting by id is sorting by creation.  There are no lazy relationships: callers select what they
need, and a query per row cannot happen by accident.
"""

# Longer than 300 lines: the tables are read side by side.

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import JSON, BigInteger, DateTime, Dialect, Enum, ForeignKey, Index, Integer, MetaData, Text, func, text
from sqlalchemy.orm import DeclarativeBase, Mapped, column_property, mapped_column
from sqlalchemy.types import TypeDecorator
from uuid_utils.compat import uuid7

from db.containers import Container
from db.phase import Phase, PhaseOutcome
from db.stored import Containers, KnownWord, Texts


class HostTransport(StrEnum):
    """How a host is reached."""

    SSH = "SSH"
    LOCAL = "LOCAL"


class DeploymentStatus(StrEnum):
    """The status of a deployment: the result of its last run."""

    PENDING = "PENDING"  # never run
    RUNNING = "RUNNING"  # a run is queued or being played
    SUCCESS = "SUCCESS"
    FAILED = "FAILED"


class RunStatus(StrEnum):
    """The status of a run.  The last three are final."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    SUCCESS = "SUCCESS"
    FAILED = "FAILED"
    CANCELED = "CANCELED"


ACTIVE = (RunStatus.QUEUED, RunStatus.RUNNING)


class RunAction(StrEnum):
    """What a run does with the Compose project: bring it up, or take it down."""

    UP = "UP"
    DOWN = "DOWN"


class RunTrigger(StrEnum):
    """What caused a run."""

    API = "API"  # runDeployment or runDeployments


UNKNOWN = "unknown"  # the creator of a run when it was not recorded; no token can have this name


class LogLevel(StrEnum):
    """The severity of a log entry."""

    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"


class Role(StrEnum):
    """What a token may do; each role includes those before it."""

    VIEWER = "VIEWER"
    OPERATOR = "OPERATOR"
    DEPLOYER = "DEPLOYER"
    ADMIN = "ADMIN"

    @property
    def rank(self) -> int:
        return list(Role).index(self)


class FailureReason(StrEnum):
    """Why a run did not succeed."""

    SSH_KEY_NOT_FOUND = "SSH_KEY_NOT_FOUND"
    SSH_KEY_INVALID = "SSH_KEY_INVALID"
    HOST_UNREACHABLE = "HOST_UNREACHABLE"
    HOST_KEY_MISMATCH = "HOST_KEY_MISMATCH"
    HOST_KEY_UNKNOWN = "HOST_KEY_UNKNOWN"
    AUTHENTICATION_FAILED = "AUTHENTICATION_FAILED"
    DOCKER_UNAVAILABLE = "DOCKER_UNAVAILABLE"
    COMPOSE_INVALID = "COMPOSE_INVALID"
    IMAGE_PULL_FAILED = "IMAGE_PULL_FAILED"
    IMAGE_BUILD_FAILED = "IMAGE_BUILD_FAILED"
    PORT_IN_USE = "PORT_IN_USE"
    DISK_FULL = "DISK_FULL"
    UNHEALTHY = "UNHEALTHY"
    TASK_FAILED = "TASK_FAILED"
    TIMEOUT = "TIMEOUT"
    CANCELED = "CANCELED"
    INTERRUPTED = "INTERRUPTED"
    ANSIBLE_ERROR = "ANSIBLE_ERROR"


def now() -> datetime:
    """Return the current time in UTC."""
    return datetime.now(UTC)


class UTCDateTime(TypeDecorator[datetime]):
    """An aware time, stored in UTC.  SQLite has no time zones, so there it is stored naive."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a stored time needs a time zone")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    """The metadata of all tables; constraint names are fixed so that migrations can refer to them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy's name
        datetime: UTCDateTime,
        str: Text,
        list[str]: JSON,
        list[dict[str, Any]]: JSON,
    }


def _enum(kind: type[StrEnum]) -> Enum:
    """Return a column type for `kind` as text, so that a new member needs no migration of a database type."""
    return Enum(kind, native_enum=False, create_constraint=False, length=32)


class Installation(Base):
    """The only row, which identifies this installation of daos to the hosts; all nodes of a database share it."""

    __tablename__ = "installation"

    id: Mapped[UUID] = mapped_column(primary_key=True)


class SshKey(Base):
    """A private key for logging in to hosts."""

    __tablename__ = "ssh_keys"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid7)
    name: Mapped[str] = mapped_column(unique=True)
    public_key: Mapped[str]  # a line for authorized_keys
    fingerprint: Mapped[str]  # SHA256 of the public key
    ciphertext: Mapped[str]  # of the private key in OpenSSH's format, with its encryption key's id: see db.encryption
    created_at: Mapped[datetime] = mapped_column(default=now)


class Host(Base):
    """A machine that is deployed to."""

    __tablename__ = "hosts"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid7)
    name: Mapped[str] = mapped_column(unique=True)
    transport: Mapped[HostTransport] = mapped_column("connection", _enum(HostTransport))
    address: Mapped[str | None]
    port: Mapped[int]
    user: Mapped[str]
    ssh_key_path: Mapped[str | None]  # on the machine that the server runs on
    ssh_key_id: Mapped[UUID | None] = mapped_column(ForeignKey("ssh_keys.id", ondelete="RESTRICT"))  # instead of a path
    host_key_fingerprint: Mapped[str | None] = mapped_column("host_key")  # SHA256 of the first pinned key
    known_hosts: Mapped[str | None]  # pinned keys and authorities, see runner.ssh.known_hosts
    created_at: Mapped[datetime] = mapped_column(default=now)
    updated_at: Mapped[datetime] = mapped_column(default=now)


class HostLabel(Base):
    """A label of a host; tokens can be limited to hosts with certain labels."""

    __tablename__ = "host_labels"
    __table_args__ = (Index("ix_host_labels_label_host_id", "label", "host_id"),)

    host_id: Mapped[UUID] = mapped_column(ForeignKey("hosts.id", ondelete="CASCADE"), primary_key=True)
    label: Mapped[str] = mapped_column(primary_key=True)


class Package(Base):
    """What is deployed: a Compose file.  Its further files are `PackageFile` rows.  A package is immutable."""

    __tablename__ = "packages"
    __table_args__ = (Index("uq_packages_name_version", "name", "version", unique=True),)

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid7)
    name: Mapped[str]
    version: Mapped[str]
    compose_file: Mapped[str] = mapped_column(deferred=True, deferred_raiseload=True)  # up to 1 MiB
    requirements: Mapped[list[dict[str, Any]] | None]  # see runner.compose.interpolation; None: not read yet
    created_at: Mapped[datetime] = mapped_column(default=now)
    updated_at: Mapped[datetime] = mapped_column(default=now)


class PackageFile(Base):
    """A further file of a package, at `path` relative to the directory of compose.yaml."""

    __tablename__ = "package_files"

    package_id: Mapped[UUID] = mapped_column(ForeignKey("packages.id", ondelete="CASCADE"), primary_key=True)
    path: Mapped[str] = mapped_column(primary_key=True)
    data: Mapped[bytes] = mapped_column(deferred=True, deferred_raiseload=True)  # up to 4 MiB
    size: Mapped[int] = column_property(func.length(data))  # bytes of `data`, without reading it
    mode: Mapped[int] = mapped_column(default=0o644)  # permission bits
    only_if_missing: Mapped[bool] = mapped_column(default=False)  # an existing file on the host is left as it is


class RegistryLogin(Base):
    """The credentials with which a package's images are pulled from one registry."""

    __tablename__ = "registry_logins"

    package_id: Mapped[UUID] = mapped_column(ForeignKey("packages.id", ondelete="CASCADE"), primary_key=True)
    address: Mapped[str] = mapped_column(primary_key=True)  # of the registry: host, or host:port
    username: Mapped[str]
    ciphertext: Mapped[str]  # the password: see db.encryption


class Deployment(Base):
    """A package on a host, under a Compose project name that is unique on that host."""

    __tablename__ = "deployments"
    __table_args__ = (
        Index("uq_deployments_host_id_project_name", "host_id", "project_name", unique=True),
        # Pages below a host or a package.
        Index("ix_deployments_host_id_id", "host_id", "id"),
        Index("ix_deployments_package_id_id", "package_id", "id"),
        # Orders of all deployments; those of one host or package are few enough to sort.
        Index("ix_deployments_updated_at_id", "updated_at", "id"),
        Index("ix_deployments_project_name_id", "project_name", "id"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid7)
    host_id: Mapped[UUID] = mapped_column(ForeignKey("hosts.id", ondelete="RESTRICT"))
    package_id: Mapped[UUID] = mapped_column(ForeignKey("packages.id", ondelete="RESTRICT"))
    project_name: Mapped[str]
    status: Mapped[DeploymentStatus] = mapped_column(_enum(DeploymentStatus), index=True)
    # What `status` was when the active run was accepted; meaningless without an active run.
    status_before: Mapped[DeploymentStatus] = mapped_column(_enum(DeploymentStatus), server_default="PENDING")
    # The run whose files are on the host.  No foreign key: runs refer to their deployment and are deleted only with it.
    current_run_id: Mapped[UUID | None]
    created_at: Mapped[datetime] = mapped_column(default=now)
    updated_at: Mapped[datetime] = mapped_column(default=now)


class Variable(Base):
    """A variable of a deployment.  A secret variable has `ciphertext` instead of `value`."""

    __tablename__ = "variables"

    deployment_id: Mapped[UUID] = mapped_column(ForeignKey("deployments.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str | None]
    ciphertext: Mapped[str | None]  # with the id of its encryption key: see db.encryption
    secret: Mapped[bool]


class Run(Base):
    """One execution of a deployment.  At most one run of a deployment is active."""

    __tablename__ = "runs"
    __table_args__ = (
        Index("uq_runs_deployment_id_number", "deployment_id", "number", unique=True),
        # A second safeguard, after the compare-and-set in db.status.
        Index(
            "uq_runs_active_deployment_id",
            "deployment_id",
            unique=True,
            sqlite_where=text("status IN ('QUEUED', 'RUNNING')"),
            postgresql_where=text("status IN ('QUEUED', 'RUNNING')"),
        ),
        # Lists of runs, newest first, by the columns that clients filter on.
        Index("ix_runs_status_id", "status", "id"),
        Index("ix_runs_deployment_id_id", "deployment_id", "id"),
        Index("ix_runs_reason_id", "reason", "id"),
        Index("ix_runs_created_by_id", "created_by", "id"),
        Index("ix_runs_queued_at", "queued_at"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid7)
    deployment_id: Mapped[UUID] = mapped_column(ForeignKey("deployments.id", ondelete="CASCADE"))
    number: Mapped[int]  # 1, 2, 3 … within its deployment
    action: Mapped[RunAction] = mapped_column(_enum(RunAction))
    # The database has the defaults too, so that the previous release, without these columns, can run beside this one.
    trigger: Mapped[RunTrigger] = mapped_column(_enum(RunTrigger), default=RunTrigger.API, server_default="API")
    created_by: Mapped[str] = mapped_column(default=UNKNOWN, server_default=UNKNOWN)  # the token's name
    status: Mapped[RunStatus] = mapped_column(_enum(RunStatus), default=RunStatus.QUEUED)
    reason: Mapped[FailureReason | None] = mapped_column(KnownWord(FailureReason, FailureReason.TASK_FAILED))
    message: Mapped[str | None]
    progress: Mapped[float] = mapped_column(default=0.0)
    containers: Mapped[list[Container]] = mapped_column(Containers, default=list)  # on the host after the run
    warnings: Mapped[list[str]] = mapped_column(Texts, default=list, server_default="[]")
    epoch: Mapped[int] = mapped_column(default=0)  # grows with each claim; a write with an older one is refused
    worker: Mapped[str | None]  # the worker that holds the run
    cancel_requested_at: Mapped[datetime | None]
    # The database has the default too, so that the previous release, without priorities, can run beside this one.
    priority: Mapped[int] = mapped_column(default=0, server_default="0")
    queued_at: Mapped[datetime] = mapped_column(default=now)
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class Worker(Base):
    """A process that plays runs, when several share a database.  It may hold runs while it renews its lease in time."""

    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(primary_key=True)  # of one process; `Run.worker` refers to it
    node: Mapped[str] = mapped_column(index=True)  # one data directory, which only one process at a time can use
    name: Mapped[str]  # for people
    max_runs: Mapped[int]  # that it plays at the same time
    started_at: Mapped[datetime]
    seen_at: Mapped[datetime]  # both by the database's clock: clocks of several machines cannot be compared


class LogEntry(Base):
    """One entry of a run's log.  `sequence` counts from 1 within the run, without gaps."""

    __tablename__ = "log_entries"

    run_id: Mapped[UUID] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True)
    sequence: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(default=now)
    level: Mapped[LogLevel] = mapped_column(KnownWord(LogLevel, LogLevel.WARNING))
    phase: Mapped[Phase | None] = mapped_column(KnownWord(Phase, None))  # None: from the server, outside all phases
    message: Mapped[str]


class RunPhase(Base):
    """A phase of a run that has begun, or that was skipped.  The row is added when that is known."""

    __tablename__ = "run_phases"

    run_id: Mapped[UUID] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)  # among the run's phases; positions can have gaps
    phase: Mapped[Phase | None] = mapped_column(KnownWord(Phase, None))  # None: a phase of a newer release
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    outcome: Mapped[PhaseOutcome | None] = mapped_column(KnownWord(PhaseOutcome, None))  # None: being played


class RunEvent(Base):
    """A change of a run's status or phase, and its time.  `sequence` counts from 1 within the run, without gaps."""

    __tablename__ = "run_events"

    run_id: Mapped[UUID] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True)
    sequence: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime]


class StatusEvent(Base):
    """A change of a deployment's status to `status`.  `sequence` is the order in which all subscribers see changes."""

    __tablename__ = "status_events"
    # Without AUTOINCREMENT SQLite reuses the number of a deleted last row, and a cursor would skip the new row.
    __table_args__ = (
        Index("ix_status_events_deployment_id_sequence", "deployment_id", "sequence"),
        {"sqlite_autoincrement": True},
    )

    sequence: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    deployment_id: Mapped[UUID] = mapped_column(ForeignKey("deployments.id", ondelete="CASCADE"))
    run_id: Mapped[UUID | None]  # no foreign key: runs and events are deleted together, with their deployment
    status: Mapped[DeploymentStatus] = mapped_column(_enum(DeploymentStatus))
    at: Mapped[datetime] = mapped_column(default=now)


class DeletedDeployment(Base):
    """A deployment that was deleted, as it was `at` that time.  The row is kept for a while, see db.status.

    Its `sequence` is one of those of `StatusEvent`, whose rows are deleted with their deployment.
    """

    __tablename__ = "deleted_deployments"
    __table_args__ = (Index("uq_deleted_deployments_sequence", "sequence", unique=True),)

    id: Mapped[UUID] = mapped_column(primary_key=True)
    sequence: Mapped[int] = mapped_column(BigInteger)
    # No foreign keys: the host and the package can be deleted before the row is removed.
    host_id: Mapped[UUID]
    package_id: Mapped[UUID]
    project_name: Mapped[str]
    status: Mapped[DeploymentStatus] = mapped_column(KnownWord(DeploymentStatus, DeploymentStatus.FAILED))
    at: Mapped[datetime] = mapped_column(default=now, index=True)


class Token(Base):
    """An access token.  Only its SHA-256 is stored: it has 256 random bits, so that a slow hash would add nothing."""

    __tablename__ = "tokens"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid7)
    name: Mapped[str] = mapped_column(unique=True)
    sha256: Mapped[str] = mapped_column(unique=True)
    # The database has the default: tokens of releases without roles could do everything.
    role: Mapped[Role] = mapped_column(_enum(Role), default=Role.ADMIN, server_default="ADMIN")
    host_labels: Mapped[list[str] | None]  # it sees only what is on hosts with one of these; None: everything
    created_at: Mapped[datetime] = mapped_column(default=now)
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class AuditEntry(Base):
    """A mutation that was requested, with its outcome.  Rows are never changed."""

    __tablename__ = "audit_entries"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid7)
    at: Mapped[datetime] = mapped_column(default=now, index=True)
    principal: Mapped[str]  # the token's name
    # No foreign key: rows are never changed.  None: not a row of `tokens`, or an entry of an earlier release.
    token_id: Mapped[UUID | None]
    address: Mapped[str | None]  # that the request came from; None: the command line
    mutation: Mapped[str]
    object_ids: Mapped[list[str]]  # that the mutation names, and that it created
    outcome: Mapped[str]  # "OK", or the code of the error


class IdempotencyKey(Base):
    """A completed request that a client may repeat.  A key is unique for one token and one mutation."""

    __tablename__ = "idempotency_keys"
    __table_args__ = (
        Index("uq_idempotency_keys_principal_mutation_key", "principal", "mutation", "key", unique=True),
        Index("ix_idempotency_keys_created_at", "created_at"),  # for the removal of old keys
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid7)
    principal: Mapped[str]  # "token:" and the token's id; "admin" or "oidc:…" for a token without a row
    mutation: Mapped[str]
    key: Mapped[str]
    fingerprint: Mapped[str]  # of the input, which may hold secrets: see db.encryption
    object_ids: Mapped[list[str]]  # that the request created, in the order of its response
    created_at: Mapped[datetime] = mapped_column(default=now)
