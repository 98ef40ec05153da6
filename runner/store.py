"""The runner's database access except for statuses and logs: a run's project, the queue, a host's key."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from uuid import UUID

from sqlalchemy import ColumnElement, Subquery, case, exists, func, or_, select, true, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import undefer

from db import status
from db.encryption import Keyring, Secret
from db.models import (
    Deployment,
    Host,
    Installation,
    Package,
    PackageFile,
    RegistryLogin,
    Run,
    RunStatus,
    SshKey,
    Variable,
    Worker,
    now,
)
from runner.spec.run import Login, Project, ProjectFile
from runner.ssh import keys
from runner.ssh.target import Target


@dataclass(frozen=True)
class Capacity:
    """How many runs are played at the same time: in total, and on one host."""

    runs: int
    per_host: int


class RunBlocker(StrEnum):
    """What keeps a queued run from being played."""

    SERVER_LIMIT = "SERVER_LIMIT"
    HOST_LIMIT = "HOST_LIMIT"


@dataclass(frozen=True)
class Place:
    """A run's position in the queue, 1 being the next; `blocked_by` is None if it is about to be played."""

    position: int
    blocked_by: RunBlocker | None


ORDER = (Run.priority.desc(), Run.id)  # of the queue; ids grow with acceptance


async def queued(session: AsyncSession, active: Mapping[UUID, UUID], limit: int, per_host: int) -> dict[UUID, UUID]:
    """Return up to `limit` queued runs with their hosts: by priority, highest first, then oldest first.

    `active` are the runs that are already being played, with their hosts; together with these there are at most
    `per_host` runs of one host.
    """
    place = func.row_number().over(partition_by=Deployment.host_id, order_by=ORDER)
    turn = func.row_number().over(order_by=ORDER)
    waiting = (
        select(Run.id, Deployment.host_id, place.label("place"), turn.label("turn"))
        .join(Deployment, Deployment.id == Run.deployment_id)
        .where(Run.status == RunStatus.QUEUED, Run.id.not_in(active))
        .subquery()
    )
    # The statement ignores active runs, so it may return too many of a host: at most as many as are active in total.
    statement = select(waiting.c.id, waiting.c.host_id).where(waiting.c.place <= per_host).order_by(waiting.c.turn)
    busy = Counter(active.values())
    found: dict[UUID, UUID] = {}
    for run_id, host_id in await session.execute(statement.limit(limit + len(active))):
        if busy[host_id] < per_host and len(found) < limit:
            busy[host_id] += 1
            found[run_id] = host_id
    return found


async def places(session: AsyncSession, run_ids: Sequence[UUID], capacity: Capacity) -> dict[UUID, Place]:
    """Return the places in the queue of those runs that are queued.

    First come the runs that `queued` would return if the server had room for all, in the same order, then those whose
    hosts are full.  When a run on a full host ends, the host's next one moves to the place of its priority and age.
    """
    of_host = _playing_by_host()
    place = func.row_number().over(partition_by=Deployment.host_id, order_by=ORDER)
    full = func.coalesce(of_host.c.playing, 0) + place > capacity.per_host
    waits_for = case((full, _FULL), else_=_READY).label("waits_for")
    waiting = (
        select(Run.id, Run.priority, waits_for)
        .join(Deployment, Deployment.id == Run.deployment_id)
        .outerjoin(of_host, of_host.c.host_id == Deployment.host_id)
        .where(Run.status == RunStatus.QUEUED)
        .subquery()
    )
    order = (waiting.c.waits_for, waiting.c.priority.desc(), waiting.c.id)
    position = func.row_number().over(order_by=order).label("position")
    line = select(waiting.c.id, waiting.c.waits_for, position).subquery()
    playing = select(func.count()).select_from(Run).where(Run.status == RunStatus.RUNNING).scalar_subquery()
    statement = select(line.c.id, line.c.waits_for, line.c.position, playing).where(line.c.id.in_(run_ids))
    return {
        run_id: Place(position, _blocker(waits_for, position, capacity.runs - playing))
        for run_id, waits_for, position, playing in await session.execute(statement)
    }


async def waiting_since(session: AsyncSession, per_host: int) -> datetime | None:
    """Return when the oldest run that waits only for a worker was accepted; None if there is none."""
    of_host = _playing_by_host()
    has_room = func.coalesce(of_host.c.playing, 0) < per_host
    statement = (
        select(func.min(Run.queued_at))
        .join(Deployment, Deployment.id == Run.deployment_id)
        .outerjoin(of_host, of_host.c.host_id == Deployment.host_id)
        .where(Run.status == RunStatus.QUEUED, has_room)
    )
    moment: datetime | None = await session.scalar(statement)
    return moment


def _playing_by_host() -> Subquery:
    return (
        select(Deployment.host_id, func.count().label("playing"))
        .join(Run, Run.deployment_id == Deployment.id)
        .where(Run.status == RunStatus.RUNNING)
        .group_by(Deployment.host_id)
        .subquery()
    )


_READY, _FULL = range(2)  # what a run waits for: its turn, its host


def _blocker(waits_for: int, position: int, room: int) -> RunBlocker | None:
    if waits_for == _READY:
        return RunBlocker.SERVER_LIMIT if position > room else None
    return RunBlocker.HOST_LIMIT


@dataclass(frozen=True)
class Backlog:
    """What a worker has to repair when several workers share a database."""

    lost: bool  # there are lost workers, or runs that no worker holds
    needs_repair: bool  # there are runs without jobs, or jobs without workers


async def backlog(session: AsyncSession, silence: float, needs_repair: ColumnElement[bool]) -> Backlog:
    """Return whether there is something to repair, with one statement, because each worker checks periodically."""
    silent = exists().where(Worker.seen_at < status.clock() - timedelta(seconds=silence))
    orphan = exists().where(Run.status == RunStatus.RUNNING, ~exists().where(Worker.id == Run.worker))
    lost, needed = (await session.execute(select(or_(silent, orphan), needs_repair))).one()
    return Backlog(lost, needed)


async def held(session: AsyncSession, worker: str) -> set[UUID]:
    """Return the runs that the worker holds according to the database."""
    statement = select(Run.id).where(Run.status == RunStatus.RUNNING, Run.worker == worker)
    return set(await session.scalars(statement))


async def running(session: AsyncSession) -> dict[UUID, UUID]:
    """Return all RUNNING runs with their hosts, oldest first; their workers may have died."""
    statement = (
        select(Run.id, Deployment.host_id)
        .join(Deployment, Deployment.id == Run.deployment_id)
        .where(Run.status == RunStatus.RUNNING)
        .order_by(Run.id)
    )
    return {row.id: row.host_id for row in await session.execute(statement)}


async def project(session: AsyncSession, run_id: UUID, keyring: Keyring) -> tuple[Project, bool]:
    """Return what the run plays, and whether it was canceled.

    Raises: UnknownKey, if a secret cannot be decrypted.
    """
    # Longer than 40 lines: one object with many fields.
    statement = (
        select(Run, Deployment, Host, Package, Installation.id)
        .options(undefer(Package.compose_file))
        .join(Deployment, Deployment.id == Run.deployment_id)
        .join(Host, Host.id == Deployment.host_id)
        .join(Package, Package.id == Deployment.package_id)
        .join(Installation, true())  # there is exactly one
        .where(Run.id == run_id)
    )
    run, deployment, host, package, installation = (await session.execute(statement)).one()
    of_package = select(PackageFile).where(PackageFile.package_id == package.id)
    files = await session.scalars(of_package.options(undefer(PackageFile.data)))
    variables = list(await session.scalars(select(Variable).where(Variable.deployment_id == deployment.id)))
    registries = select(RegistryLogin).where(RegistryLogin.package_id == package.id).order_by(RegistryLogin.address)
    logins = [
        Login(login.address, login.username, keyring.decrypt(login.ciphertext))
        for login in await session.scalars(registries)
    ]
    rivals = select(Deployment.id).where(
        Deployment.project_name == deployment.project_name, Deployment.id != deployment.id
    )
    values = {variable.name: _value(variable, keyring) for variable in variables}
    ssh_key = await _ssh_key(session, host, keyring)
    what = Project(
        run_id=run.id,
        number=run.number,
        action=run.action,
        deployment_id=deployment.id,
        installation=installation,
        name=deployment.project_name,
        package=f"{package.name} {package.version}",
        target=_target(host, ssh_key),
        compose_file=package.compose_file,
        files={file.path: ProjectFile(file.data, file.mode, file.only_if_missing) for file in files},
        variables=values,
        secrets=[
            *(values[variable.name] for variable in variables if variable.secret),
            *([ssh_key] if ssh_key is not None else []),
            *(login.password for login in logins),
        ],
        rivals=list(await session.scalars(rivals)),
        logins=logins,
    )
    return what, run.cancel_requested_at is not None


def _value(variable: Variable, keyring: Keyring) -> Secret:
    if variable.ciphertext is not None:
        return keyring.decrypt(variable.ciphertext)
    return Secret(variable.value or "")


async def _ssh_key(session: AsyncSession, host: Host, keyring: Keyring) -> Secret | None:
    if host.ssh_key_id is None:
        return None
    key = await session.get_one(SshKey, host.ssh_key_id)
    return keyring.decrypt(key.ciphertext)


def _target(host: Host, ssh_key: Secret | None) -> Target:
    return Target(
        id=host.id,
        name=host.name,
        transport=host.transport,
        address=host.address,
        port=host.port,
        user=host.user,
        ssh_key_path=Path(host.ssh_key_path) if host.ssh_key_path is not None else None,
        known_hosts=host.known_hosts,
        ssh_key=ssh_key,
    )


async def pin(session: AsyncSession, target: Target, line: str) -> bool:
    """Pin the key in `line` of known_hosts for a host that has none; False if another one was pinned meanwhile."""
    pinned = await session.execute(
        update(Host)
        .where(
            Host.id == target.id,
            Host.known_hosts.is_(None),
            # If the host's address was changed during the run, the key belongs to the old address, and is not pinned.
            Host.address == target.address,
            Host.port == target.port,
        )
        .values(known_hosts=line, host_key_fingerprint=keys.fingerprint(line), updated_at=now())
        .returning(Host.id)
    )
    if pinned.scalar_one_or_none() is not None:
        return True
    host = await session.get_one(Host, target.id)
    moved = (host.address, host.port) != (target.address, target.port)
    return moved or host.host_key_fingerprint == keys.fingerprint(line)
