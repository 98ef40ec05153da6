"""The enums of the API: the domain's own, with a description for each value.

Types and inputs take them from here, for Strawberry has to know an enum before it sees it used.
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
    """Make `kind` an enum of the API, there with `name` if it is another one.  Every value has to be described."""
    described: Kind = strawberry.enum(kind, name=name, description=description)
    for value in described.__strawberry_definition__.values:  # type: ignore[attr-defined] # Strawberry sets it
        value.description = values[kind[value.name]]  # type: ignore[index] # the members are StrEnums
    return described


_describe(
    HostTransport,
    "How a host is reached.",
    {HostTransport.SSH: "Over SSH.", HostTransport.LOCAL: "It is the machine that the server runs on."},
)
_describe(
    Role,
    "What a token may do; each role may do what those before it may.",
    {
        Role.VIEWER: "See everything but tokens and the audit.",
        Role.OPERATOR: "Run deployments, cancel runs, and ask hosts which keys they show.",
        Role.DEPLOYER: "Create and delete packages and deployments.",
        Role.ADMIN: "Create, change, trust and delete hosts, create and revoke tokens, and see the audit.",
    },
)
_describe(
    DeploymentStatus,
    "Where a deployment stands: what its last run made of it.",
    {
        DeploymentStatus.PENDING: "It was never run.",
        DeploymentStatus.RUNNING: "A run is queued or being played.",
        DeploymentStatus.SUCCESS: "The last run did what it was to do.",
        DeploymentStatus.FAILED: "The last run did not succeed; its `reason` and `message` say why.",
    },
)
_describe(
    RunStatus,
    "Where a run stands.",
    {
        RunStatus.QUEUED: "It waits for its turn.",
        RunStatus.RUNNING: "It is being played.",
        RunStatus.SUCCESS: "It did what it was to do, and every service is well.",
        RunStatus.FAILED: "It did not succeed.",
        RunStatus.CANCELED: "It was canceled, and its work has ended.",
    },
)
_describe(
    RunAction,
    "What a run does with the project.",
    {
        RunAction.UP: "Bring it up as the package describes it.",
        RunAction.DOWN: "Take it down: containers and networks go, volumes stay.",
    },
)
_describe(
    RunTrigger,
    "What caused a run.",
    {RunTrigger.API: "A request: `runDeployment` or `runDeployments`."},
)
_describe(
    RunBlocker,
    "What a queued run waits for.",
    {
        RunBlocker.SERVER_LIMIT: "The server plays as many runs as `DAOS_MAX_RUNS` allows, or others come first.",
        RunBlocker.HOST_LIMIT: "Its host has as many runs as `DAOS_MAX_RUNS_PER_HOST` allows, or others come first.",
    },
)
_describe(
    LogLevel,
    "How much a log entry matters.",
    {
        LogLevel.INFO: "What happens.",
        LogLevel.WARNING: "What may need attention.",
        LogLevel.ERROR: "Why the run does not succeed.",
    },
)
_describe(
    Phase,
    "A part of a run.  More may be added.",
    {
        Phase.PREPARE: "Delivers the package to the host, and compares it with what is there.",
        Phase.BUILD: "Builds the images of the package that are out of date.",
        Phase.PULL: "Pulls the images that Up needs and the host does not have.",
        Phase.UP: "Starts the containers.",
        Phase.VERIFY: "Waits until every service is well.",
        Phase.DOWN: "Removes containers and networks.",
        Phase.HALT: "Ends what is left of a canceled run on the host, and asks how far it had come.",
        Phase.RECOVER: "The same for a run that was cut off, and decides how it would have ended.",
    },
)
_describe(
    PhaseOutcome,
    "How a phase ended.",
    {
        PhaseOutcome.OK: "It did what it was to do.",
        PhaseOutcome.FAILED: "It failed, or the run did not succeed and ended in it.",
        PhaseOutcome.SKIPPED: "It had nothing to do, or the run ended before it.",
    },
)
_describe(
    ContainerState,
    "What Docker does with a container.",
    {
        ContainerState.CREATED: "It was created, and never started.",
        ContainerState.RUNNING: "It runs.",
        ContainerState.PAUSED: "Its processes are suspended.",
        ContainerState.RESTARTING: "It has ended, and Docker starts it again.",
        ContainerState.REMOVING: "It is being removed.",
        ContainerState.EXITED: "It has ended.",
        ContainerState.DEAD: "Docker could not remove it.",
    },
)
_describe(
    ContainerHealth,
    "What a container's health check has found.",
    {
        ContainerHealth.STARTING: "It has not decided yet.",
        ContainerHealth.HEALTHY: "It passes.",
        ContainerHealth.UNHEALTHY: "It fails.",
    },
)
_describe(
    FailureReason,
    "Why a run did not succeed.",
    {
        FailureReason.SSH_KEY_NOT_FOUND: "The SSH key file is not there, or the server cannot read it.",
        FailureReason.SSH_KEY_INVALID: "The SSH key file is no private key that ssh can use.",
        FailureReason.HOST_UNREACHABLE: "The host does not answer.",
        FailureReason.HOST_KEY_MISMATCH: "The host shows another key than the pinned one.",
        FailureReason.HOST_KEY_UNKNOWN: "The host has no pinned key, and the server's policy is `strict`.",
        FailureReason.AUTHENTICATION_FAILED: "The host refuses the login.",
        FailureReason.DOCKER_UNAVAILABLE: "Docker, or compose v2, cannot be used on the host.",
        FailureReason.COMPOSE_INVALID: "Docker compose refuses the project.",
        FailureReason.IMAGE_PULL_FAILED: "An image is not there and cannot be pulled; what ran before still runs.",
        FailureReason.IMAGE_BUILD_FAILED: "An image could not be built; what ran before still runs.",
        FailureReason.PORT_IN_USE: "A port that the project publishes is in use on the host; the message names it.",
        FailureReason.DISK_FULL: "The host's disk is full; the message says how much is free.",
        FailureReason.UNHEALTHY: "A container crashed, or its health check fails.",
        FailureReason.TASK_FAILED: "A task failed on the host for another reason, which the message tells.",
        FailureReason.TIMEOUT: "The run took longer than it may.",
        FailureReason.CANCELED: "The run was canceled.",
        FailureReason.INTERRUPTED: "The run was cut off, and that it succeeded could not be established.",
        FailureReason.ANSIBLE_ERROR: "Ansible itself failed.",
    },
)
_describe(
    ErrorCode,
    "`extensions.code` of an error; `extensions.status` carries the number.",
    {
        ErrorCode.BAD_USER_INPUT: "400. The input breaks a rule; `problems` has all of them.",
        ErrorCode.HOST_NOT_FOUND: "400. The input names a host that is not there.",
        ErrorCode.PACKAGE_NOT_FOUND: "400. The input names a package that is not there.",
        ErrorCode.NOT_FOUND: "404. There is nothing with this id.",
        ErrorCode.RUN_ALREADY_IN_PROGRESS: "400. A run is queued or being played; `runId` names it.",
        ErrorCode.NAME_TAKEN: "400. Something else has the name.",
        ErrorCode.IN_USE: "400. Deployments name it, or hosts an SSH key.",
        ErrorCode.HOST_UNREACHABLE: "400. The host does not answer, or shows no key.",
        ErrorCode.UNAUTHENTICATED: "401. A valid access token is needed.",
        ErrorCode.FORBIDDEN: "403. The access token does not allow it.",
        ErrorCode.OPERATION_TOO_COMPLEX: "400. The operation asks for too much at once.",
        ErrorCode.STORAGE_FULL: "507. The server's storage is full; nothing was changed, and reading goes on.",
        ErrorCode.INTERNAL_SERVER_ERROR: "500. Unexpected; the server's log has it under `errorId`.",
    },
)
_describe(
    OrderField,
    "What deployments are ordered by.",
    {
        OrderField.CREATED_AT: "When the deployment was created.",
        OrderField.UPDATED_AT: "When its status last changed.",
        OrderField.PROJECT_NAME: "The name of the project, as the database sorts text.",
    },
    name="DeploymentOrderField",
)
_describe(
    OrderDirection,
    "Which end of an order a list begins with.",
    {
        OrderDirection.ASC: "The earliest time, or the first name.",
        OrderDirection.DESC: "The latest time, or the last name.",
    },
)
