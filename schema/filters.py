"""The inputs that filter and order lists, and their conversion for the resolvers.  Null is the same as omitted."""

from datetime import datetime
from typing import TypeVar

import strawberry
from strawberry import UNSET

from resolvers import deployments, hosts, packages, runs
from schema.enums import (
    DeploymentStatus,
    FailureReason,
    OrderDirection,
    OrderField,
    RunAction,
    RunStatus,
    RunTrigger,
)

Value = TypeVar("Value")


@strawberry.input(
    description="Selects deployments; all given conditions must hold, and a list is met by any of its members."
)
class DeploymentFilter:
    status_in: list[DeploymentStatus] | None = strawberry.field(
        default=UNSET, description="Have one of these statuses."
    )
    host_id: strawberry.ID | None = strawberry.field(default=UNSET, description="Are on this host.")
    package_id: strawberry.ID | None = strawberry.field(default=UNSET, description="Are of this package.")
    host_labels_any: list[str] | None = strawberry.field(
        default=UNSET, description="Are on a host with one of these labels; at most 100."
    )
    search: str | None = strawberry.field(
        default=UNSET, description="Part of the project, host, or package name, ignoring case."
    )


@strawberry.input(description="Selects hosts; all given conditions must hold, and a list is met by any of its members.")
class HostFilter:
    labels_any: list[str] | None = strawberry.field(default=UNSET, description="Have one of these labels; at most 100.")
    search: str | None = strawberry.field(default=UNSET, description="Part of the name or address, ignoring case.")


@strawberry.input(description="Selects packages; all given conditions must hold.")
class PackageFilter:
    search: str | None = strawberry.field(default=UNSET, description="Part of the name, ignoring case.")


@strawberry.input(description="Selects runs; all given conditions must hold, and a list is met by any of its members.")
class RunFilter:
    status_in: list[RunStatus] | None = strawberry.field(default=UNSET, description="Have one of these statuses.")
    reason_in: list[FailureReason] | None = strawberry.field(
        default=UNSET, description="Did not succeed for one of these reasons."
    )
    action_in: list[RunAction] | None = strawberry.field(default=UNSET, description="Have one of these actions.")
    trigger_in: list[RunTrigger] | None = strawberry.field(
        default=UNSET, description="Were caused by one of these triggers."
    )
    deployment_id: strawberry.ID | None = strawberry.field(default=UNSET, description="Are of this deployment.")
    host_id: strawberry.ID | None = strawberry.field(default=UNSET, description="Are of a deployment on this host.")
    created_by: str | None = strawberry.field(
        default=UNSET, description="Were created by the token with exactly this name."
    )
    queued_after: datetime | None = strawberry.field(default=UNSET, description="Were queued after this time.")
    queued_before: datetime | None = strawberry.field(default=UNSET, description="Were queued before this time.")


@strawberry.input(description="The order of deployments; those with equal values are in the order of their creation.")
class DeploymentOrder:
    field: OrderField = strawberry.field(description="The field to order by.")
    direction: OrderDirection = strawberry.field(description="Ascending or descending.")


def order_of_deployments(given: DeploymentOrder | None) -> deployments.Order:
    return deployments.Order(given.field, given.direction) if given else deployments.NEWEST_FIRST


def of_deployments(given: DeploymentFilter | None) -> deployments.Filter:
    if not given:
        return deployments.Filter()
    return deployments.Filter(
        status_in=_members(given.status_in),
        host_id=_value(given.host_id),
        package_id=_value(given.package_id),
        host_labels_any=_members(given.host_labels_any),
        search=_value(given.search),
    )


def of_hosts(given: HostFilter | None) -> hosts.Filter:
    if not given:
        return hosts.Filter()
    return hosts.Filter(labels_any=_members(given.labels_any), search=_value(given.search))


def of_packages(given: PackageFilter | None) -> packages.Filter:
    return packages.Filter(search=_value(given.search)) if given else packages.Filter()


def of_runs(given: RunFilter | None) -> runs.Filter:
    if not given:
        return runs.Filter()
    return runs.Filter(
        status_in=_members(given.status_in),
        reason_in=_members(given.reason_in),
        action_in=_members(given.action_in),
        trigger_in=_members(given.trigger_in),
        deployment_id=_value(given.deployment_id),
        host_id=_value(given.host_id),
        created_by=_value(given.created_by),
        queued_after=_value(given.queued_after),
        queued_before=_value(given.queued_before),
    )


def _value(given: Value | None) -> Value | None:
    return None if given is UNSET else given


def _members(given: list[Value] | None) -> frozenset[Value] | None:
    return None if given is UNSET or given is None else frozenset(given)
