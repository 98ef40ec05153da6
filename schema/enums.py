"""The enums of the API: those of the domain, with a description for each value.

Types and inputs import them from here, because Strawberry must know an enum before a type uses it.
"""

from enum import Enum, StrEnum
from typing import TypeVar

import strawberry

from db.containers import ContainerHealth, ContainerState
from db.models import (
    DeploymentStatus,
    FailureReason,
    HostTransport,
    LogLevel,
    Role,
    RunAction,
    RunStatus,
    RunTrigger,
)
from db.phase import Phase, PhaseOutcome
from resolvers.deployments import OrderField
from resolvers.errors import ErrorCode
from resolvers.paging import OrderDirection
from runner.store import RunBlocker

__all__ = [
    "ContainerHealth",
    "ContainerState",
    "DeploymentStatus",
    "ErrorCode",
    "FailureReason",
    "HostTransport",
    "LogLevel",
    "OrderDirection",
    "OrderField",
    "Phase",
    "PhaseOutcome",
    "Role",
    "RunAction",
    "RunBlocker",
    "RunStatus",
    "RunTrigger",
]

Kind = TypeVar("Kind", bound=type[Enum])


def _describe(kind: Kind, description: str, values: dict[StrEnum, str], name: str | None = None) -> Kind:
    """Register `kind` as an enum of the API, under `name` if that differs.  Every value must have a description."""
    described: Kind = strawberry.enum(kind, name=name, description=description)
    for value in described.__strawberry_definition__.values:  # type: ignore[attr-defined] # Strawberry sets it
        value.description = values[kind[value.name]]  # type: ignore[index] # the members are StrEnums
    return described


_describe(
    HostTransport,
    "How the server connects to a host.",
    {HostTransport.SSH: "Over SSH.", HostTransport.LOCAL: "The host is the machine that the server runs on."},
)
_describe(
    Role,
    "What a token is allowed to do.  Each role includes the permissions of the roles before it.",
    {
        Role.VIEWER: "Read everything except tokens and the audit log.",
        Role.OPERATOR: "Run deployments, cancel runs, and scan host keys.",
        Role.DEPLOYER: "Create and delete packages and deployments.",
        Role.ADMIN: "Manage hosts, trust their keys, create and revoke tokens, and read the audit log.",
    },
)
_describe(
    DeploymentStatus,
    "The status of a deployment: the result of its last run.",
    {
        DeploymentStatus.PENDING: "The deployment has never been run.",
        DeploymentStatus.RUNNING: "A run is queued or in progress.",
        DeploymentStatus.SUCCESS: "The last run succeeded.",
        DeploymentStatus.FAILED: "The last run did not succeed; its `reason` and `message` explain why.",
    },
)
_describe(
    RunStatus,
    "The status of a run.",
    {
        RunStatus.QUEUED: "The run is waiting in the queue.",
        RunStatus.RUNNING: "The run is in progress.",
        RunStatus.SUCCESS: "The run succeeded; a run that brings a project up has verified every service.",
        RunStatus.FAILED: "The run did not succeed.",
        RunStatus.CANCELED: "The run was canceled, and all its work has stopped.",
    },
)
_describe(
    RunAction,
    "What a run does to the project.",
    {
        RunAction.UP: "Bring the project up as the package describes it.",
        RunAction.DOWN: "Take the project down: remove containers and networks, keep volumes.",
    },
)
_describe(
    RunTrigger,
    "What caused a run.",
    {RunTrigger.API: "A request: `runDeployment` or `runDeployments`."},
)
_describe(
    RunBlocker,
    "What a queued run is waiting for.",
    {
        RunBlocker.SERVER_LIMIT: "`DAOS_MAX_RUNS` runs are in progress on the server, or other runs come first.",
        RunBlocker.HOST_LIMIT: "`DAOS_MAX_RUNS_PER_HOST` runs are in progress on the host, or other runs come first.",
    },
)
_describe(
    LogLevel,
    "The severity of a log entry.",
    {
        LogLevel.INFO: "Normal operation.",
        LogLevel.WARNING: "Something that may need attention.",
        LogLevel.ERROR: "The cause of the run's failure.",
    },
)
_describe(
    Phase,
    "A part of a run.  Values may be added.",
    {
        Phase.PREPARE: "Delivers the package to the host and compares it with what is there.",
        Phase.BUILD: "Builds the images of the package that are out of date.",
        Phase.PULL: "Pulls the images that Up needs and the host does not have.",
        Phase.UP: "Starts the containers.",
        Phase.VERIFY: "Waits until every service runs, is healthy if it has a health check, or has exited with 0.",
        Phase.DOWN: "Removes containers and networks.",
        Phase.HALT: "Stops what is left of a canceled run on the host and determines how far the run had come.",
        Phase.RECOVER: "Does the same for an interrupted run, and decides how it would have ended.",
    },
)
_describe(
    PhaseOutcome,
    "How a phase ended.",
    {
        PhaseOutcome.OK: "The phase succeeded.",
        PhaseOutcome.FAILED: "The phase failed, or the run ended in it without success.",
        PhaseOutcome.SKIPPED: "The phase had nothing to do, or the run ended before it.",
    },
)
_describe(
    ContainerState,
    "The state of a container, as reported by Docker.",
    {
        ContainerState.CREATED: "Created, but never started.",
        ContainerState.RUNNING: "Running.",
        ContainerState.PAUSED: "Its processes are suspended.",
        ContainerState.RESTARTING: "Exited, and being restarted by Docker.",
        ContainerState.REMOVING: "Being removed.",
        ContainerState.EXITED: "Exited.",
        ContainerState.DEAD: "Docker could not remove it.",
    },
)
_describe(
    ContainerHealth,
    "The result of a container's health check.",
    {
        ContainerHealth.STARTING: "No result yet.",
        ContainerHealth.HEALTHY: "The check passes.",
        ContainerHealth.UNHEALTHY: "The check fails.",
    },
)
_describe(
    FailureReason,
    "Why a run did not succeed.",
    {
        FailureReason.SSH_KEY_NOT_FOUND: "The SSH key file does not exist, or the server cannot read it.",
        FailureReason.SSH_KEY_INVALID: "The SSH key file is not a private key that ssh can use.",
        FailureReason.HOST_UNREACHABLE: "The host does not respond.",
        FailureReason.HOST_KEY_MISMATCH: "The host presents a key other than the pinned one.",
        FailureReason.HOST_KEY_UNKNOWN: "The host has no pinned key, and the server's policy is `strict`.",
        FailureReason.AUTHENTICATION_FAILED: "The host rejects the login.",
        FailureReason.DOCKER_UNAVAILABLE: "Docker or Compose v2 cannot be used on the host.",
        FailureReason.COMPOSE_INVALID: "Docker Compose rejects the project.",
        FailureReason.IMAGE_PULL_FAILED: "An image is missing and cannot be pulled; the previous containers still run.",
        FailureReason.IMAGE_BUILD_FAILED: "An image could not be built; the previous containers still run.",
        FailureReason.PORT_IN_USE: "A port that the project publishes is in use on the host; `message` names it.",
        FailureReason.DISK_FULL: "The host's disk is full; `message` says how much space is free.",
        FailureReason.UNHEALTHY: "A container crashed, or its health check fails.",
        FailureReason.TASK_FAILED: "A task failed on the host for another reason, which `message` gives.",
        FailureReason.TIMEOUT: "The run exceeded its time limit.",
        FailureReason.CANCELED: "The run was canceled.",
        FailureReason.INTERRUPTED: "The run was interrupted, and it could not be established that it had succeeded.",
        FailureReason.ANSIBLE_ERROR: "Ansible itself failed.",
    },
)
_describe(
    ErrorCode,
    "`extensions.code` of an error; `extensions.status` carries the HTTP status code.",
    {
        ErrorCode.BAD_USER_INPUT: "400. The input is invalid; `problems` lists every problem.",
        ErrorCode.HOST_NOT_FOUND: "400. The input references a host that does not exist.",
        ErrorCode.PACKAGE_NOT_FOUND: "400. The input references a package that does not exist.",
        ErrorCode.NOT_FOUND: "404. No object has this id.",
        ErrorCode.RUN_ALREADY_IN_PROGRESS: "400. A run is queued or in progress; `runId` identifies it.",
        ErrorCode.NAME_TAKEN: "400. The name is already in use.",
        ErrorCode.IN_USE: "400. Deployments reference the object; for an SSH key, hosts do.",
        ErrorCode.HOST_UNREACHABLE: "400. The host does not respond, or presents no key.",
        ErrorCode.UNAUTHENTICATED: "401. A valid access token is required.",
        ErrorCode.FORBIDDEN: "403. The access token does not permit the operation.",
        ErrorCode.OPERATION_TOO_COMPLEX: "400. The operation exceeds a limit.",
        ErrorCode.STORAGE_FULL: "507. The server's storage is full; nothing was changed, and reads still work.",
        ErrorCode.INTERNAL_SERVER_ERROR: "500. An unexpected error; the server's log contains it with `errorId`.",
    },
)
_describe(
    OrderField,
    "The field by which deployments are ordered.",
    {
        OrderField.CREATED_AT: "The time when the deployment was created.",
        OrderField.UPDATED_AT: "The time when its status last changed.",
        OrderField.PROJECT_NAME: "The project name, in the collation of the database.",
    },
    name="DeploymentOrderField",
)
_describe(
    OrderDirection,
    "The direction of an order.",
    {
        OrderDirection.ASC: "Ascending: the earliest time or the first name comes first.",
        OrderDirection.DESC: "Descending: the latest time or the last name comes first.",
    },
)
