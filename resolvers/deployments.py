"""Deployments: packages on hosts, and the changes of their status."""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, SQLColumnExpression, func, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import defer
from uuid_utils.compat import uuid7

from db import status
from db.broadcast import Broadcast, Everything
from db.database import Database
from db.encryption import Secret
from db.models import DeletedDeployment, Deployment, DeploymentStatus, Host, Package, Variable
from resolvers import hosts, idempotency, ids, names, packages
from resolvers.errors import HostNotFound, NotFound, PackageNotFound, ProjectTaken, RunInProgress
from resolvers.idempotency import Key, Request
from resolvers.paging import Arguments, Listing, OrderDirection, Page
from resolvers.rules import Check
from runner.compose.interpolation import missing


class OrderField(StrEnum):
    """The fields that deployments can be ordered by."""

    CREATED_AT = "CREATED_AT"
    UPDATED_AT = "UPDATED_AT"
    PROJECT_NAME = "PROJECT_NAME"


@dataclass(frozen=True)
class Order:
    """The order of a list of deployments; deployments that are equal in it are in the order of their creation."""

    field: OrderField = OrderField.CREATED_AT
    direction: OrderDirection = OrderDirection.DESC


NEWEST_FIRST = Order()

_KEYS: dict[OrderField, tuple[SQLColumnExpression[Any], ...]] = {
    OrderField.CREATED_AT: (Deployment.id,),
    OrderField.UPDATED_AT: (Deployment.updated_at, Deployment.id),
    OrderField.PROJECT_NAME: (Deployment.project_name, Deployment.id),
}


def _listings(parent: SQLColumnExpression[UUID] | None = None) -> dict[Order, Listing[Deployment]]:
    return {
        Order(field, direction): Listing(
            "deployments" if field is OrderField.CREATED_AT else f"deployments {field}",
            Deployment,
            key=key,
            descending=direction is OrderDirection.DESC,
            parent=parent,
        )
        for field, key in _KEYS.items()
        for direction in OrderDirection
    }


ALL, ON_HOST, OF_PACKAGE = _listings(), _listings(Deployment.host_id), _listings(Deployment.package_id)
DEPLOYMENTS = ALL[NEWEST_FIRST]

Placed = type[Deployment] | type[DeletedDeployment]

MAX_SLUG = 40  # characters of the package's name in a generated project name


@dataclass(frozen=True)
class Filter:
    """Which deployments a list contains; a condition that is None is not applied.  Raises: InvalidInput."""

    status_in: frozenset[DeploymentStatus] | None = None
    host_id: str | None = None
    package_id: str | None = None
    host_labels_any: frozenset[str] | None = None
    search: str | None = None  # a part of the name of the project, the host, or the package

    def __post_init__(self) -> None:
        names.check_choices("host_labels_any", self.host_labels_any)

    def conditions(self, of: Placed = Deployment) -> list[ColumnElement[bool]]:
        """Return the conditions of the filter, all of which must hold."""
        conditions = self.but_status(of)
        if self.status_in is not None:
            conditions.append(of.status.in_(self.status_in))
        return conditions

    def but_status(self, of: Placed = Deployment) -> list[ColumnElement[bool]]:
        """Return the conditions of the filter without the one for the status."""
        conditions: list[ColumnElement[bool]] = []
        # An unknown or malformed id is not an error: it matches nothing.
        if self.host_id is not None:
            conditions.append(of.host_id == ids.parse(self.host_id))
        if self.package_id is not None:
            conditions.append(of.package_id == ids.parse(self.package_id))
        if self.host_labels_any is not None:
            conditions.append(of.host_id.in_(hosts.with_any(self.host_labels_any)))
        if self.search is not None:
            on_hosts = select(Host.id).where(names.contain(self.search, Host.name))
            of_packages = select(Package.id).where(names.contain(self.search, Package.name))
            in_project = names.contain(self.search, of.project_name)
            conditions.append(or_(in_project, of.host_id.in_(on_hosts), of.package_id.in_(of_packages)))
        return conditions


async def get(db: Database, deployment_id: str) -> Deployment:
    """Return the deployment.  Raises: NotFound."""
    async with db.read() as session:
        return await _get(session, deployment_id)


async def get_by_name(db: Database, host_name: str, project_name: str) -> Deployment | None:
    """Return the deployment of this project on this host; None if it does not exist or is not visible."""
    statement = select(Deployment).join(Host, Host.id == Deployment.host_id)
    named = names.equals(Host.name, host_name), names.equals(Deployment.project_name, project_name)
    async with db.read() as session:
        return await session.scalar(statement.where(*named))


async def get_many(db: Database, deployment_ids: Sequence[UUID]) -> dict[UUID, Deployment]:
    """Return the existing deployments among `deployment_ids`, by id."""
    async with db.read() as session:
        deployments = await session.scalars(select(Deployment).where(Deployment.id.in_(deployment_ids)))
        return {deployment.id: deployment for deployment in deployments}


async def list_page(db: Database, arguments: Arguments, narrowed: Filter, order: Order) -> Page[Deployment]:
    """Return a page of the deployments that match the filter, in `order`.  Raises: InvalidInput."""
    listing = ALL[order]
    return await listing.page(db, listing.range(arguments), *narrowed.conditions())


async def count(db: Database, narrowed: Filter) -> int:
    """Return the number of deployments that match the filter."""
    return await DEPLOYMENTS.count(db, *narrowed.conditions())


async def variables_size(db: Database, deployment_ids: Sequence[UUID]) -> int:
    """Return the total number of characters in the values of these deployments' variables, without secret ones."""
    async with db.read() as session:
        statement = select(func.sum(func.length(Variable.value))).where(Variable.deployment_id.in_(deployment_ids))
        return await session.scalar(statement) or 0


async def variables_of(db: Database, deployment_ids: Sequence[UUID]) -> dict[UUID, list[Variable]]:
    """Return the variables of each deployment, ordered by name, without the encrypted values of secret ones."""
    async with db.read() as session:
        ordered = select(Variable).where(Variable.deployment_id.in_(deployment_ids)).order_by(Variable.name)
        statement = ordered.options(defer(Variable.ciphertext, raiseload=True))
        variables: dict[UUID, list[Variable]] = defaultdict(list)
        for variable in await session.scalars(statement):
            variables[variable.deployment_id].append(variable)
        return variables


async def missing_variables_of(db: Database, deployment_ids: Sequence[UUID]) -> dict[UUID, list[str]]:
    """Return the sorted names of the variables that each deployment lacks although its package requires them."""
    async with db.read() as session:
        statement = select(Deployment.id, Deployment.package_id).where(Deployment.id.in_(deployment_ids))
        package_ids = {row.id: row.package_id for row in await session.execute(statement)}
        given: dict[UUID, set[str]] = defaultdict(set)
        names = select(Variable.deployment_id, Variable.name).where(Variable.deployment_id.in_(deployment_ids))
        for key, name in await session.execute(names):
            given[key].add(name)
    required = await packages.requirements_of(db, list(set(package_ids.values())))
    return {key: missing(required.get(package_id, ()), given[key]) for key, package_id in package_ids.items()}


@dataclass(frozen=True)
class Deleted:
    """A deployment that was deleted; `left_running`: its project was brought up on the host and not taken down."""

    id: UUID
    left_running: bool


@dataclass(frozen=True)
class NewVariable:
    """A variable of a new deployment."""

    name: str
    value: Secret
    is_secret: bool


async def create(
    db: Database,
    broadcast: Broadcast,
    *,
    host_id: str,
    package_id: str,
    project_name: str | None = None,
    variables: Sequence[NewVariable] = (),
    key: Key | None = None,
) -> Deployment:
    """Create a deployment and return it, PENDING, or return the one that an earlier request with `key` created.

    Nothing is done on the host until the deployment is run.
    Raises: InvalidInput, HostNotFound, PackageNotFound, ProjectTaken; NotFound if the earlier deployment was deleted.
    """
    # Longer than 40 lines: one transaction, and each of its errors in its place.
    check = Check()
    given = {
        "host_id": host_id,
        "package_id": package_id,
        "project_name": project_name,
        "variables": [(variable.name, variable.value, variable.is_secret) for variable in variables],
    }
    request = Request.of(key, check, given)
    if project_name is not None:
        check.project_name("project_name", project_name)
    check.variables("variables", [(variable.name, variable.value.reveal()) for variable in variables])
    check.done()
    deployment_id: UUID = uuid7()
    try:
        async with db.write() as session:
            claim = await idempotency.claim(session, db.keyring, request)
            if claim.earlier:
                return await _get(session, claim.earlier[0])
            host, package = await _parts(session, host_id, package_id)
            name, host_name = project_name or _project_name(package.name, deployment_id), host.name
            deployment = Deployment(
                id=deployment_id,
                host_id=host.id,
                package_id=package.id,
                project_name=name,
                status=DeploymentStatus.PENDING,
            )
            session.add(deployment)
            await session.flush()
            session.add_all(_row(db, deployment_id, variable) for variable in variables)
            await status.announce(session, deployment_id, DeploymentStatus.PENDING, None)
            claim.made(deployment_id)
    except IntegrityError as error:
        raise ProjectTaken(name=name, host=host_name) from error
    broadcast.notify(deployment_id, Everything.DEPLOYMENTS)
    return deployment


async def remove(db: Database, broadcast: Broadcast, deployment_id: str) -> Deleted:
    """Delete a deployment with its runs and logs, without changing anything on the host.

    Raises: NotFound, RunInProgress.
    """
    key = ids.parse(deployment_id)
    async with db.write() as session:
        removed = await status.remove(session, key) if key is not None else None
        if removed is None:
            found_id = (await _get(session, deployment_id)).id
            # The run may have ended since the statement above; it is still the one to name.
            raise RunInProgress(id=deployment_id, run=await status.newest_run(session, found_id))
    broadcast.notify(removed.id, Everything.DEPLOYMENTS)
    return Deleted(removed.id, left_running=removed.current_run_id is not None)


async def _get(session: AsyncSession, deployment_id: str) -> Deployment:
    key = ids.parse(deployment_id)
    deployment = await session.get(Deployment, key) if key is not None else None
    if deployment is None:
        raise NotFound(kind="Deployment", id=deployment_id)
    return deployment


async def _parts(session: AsyncSession, host_id: str, package_id: str) -> tuple[Host, Package]:
    host_key, package_key = ids.parse(host_id), ids.parse(package_id)
    # Locked, so that neither can be deleted before the deployment that refers to it is committed.
    lock = {"read": True, "key_share": True}
    host = await session.get(Host, host_key, with_for_update=lock) if host_key else None
    if host is None:
        raise HostNotFound(id=host_id)
    package = await session.get(Package, package_key, with_for_update=lock) if package_key else None
    if package is None:
        raise PackageNotFound(id=package_id)
    return host, package


def _project_name(package_name: str, deployment_id: UUID) -> str:
    """Return a unique project name: the package's name, and the random end of the deployment's id."""
    slug = re.sub(r"[^a-z0-9]+", "-", package_name.lower()).strip("-")[:MAX_SLUG].strip("-")
    return f"{slug or 'project'}-{deployment_id.hex[-8:]}"


def _row(db: Database, deployment_id: UUID, variable: NewVariable) -> Variable:
    return Variable(
        deployment_id=deployment_id,
        name=variable.name,
        secret=variable.is_secret,
        value=None if variable.is_secret else variable.value.reveal(),
        ciphertext=db.keyring.encrypt(variable.value) if variable.is_secret else None,
    )
