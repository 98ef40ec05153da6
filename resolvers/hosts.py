"""Hosts: machines that are deployed to."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import ColumnElement, Select, delete, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from uuid_utils.compat import uuid7

from db import status
from db.database import Database
from db.models import Deployment, DeploymentStatus, Host, HostLabel, HostTransport, now
from resolvers import idempotency, ids, names, ssh_keys
from resolvers.errors import HostHasRunInProgress, NameTaken, NotFound
from resolvers.idempotency import Key, Request
from resolvers.in_use import refuse_while_used
from resolvers.paging import Listing
from resolvers.rules import Check
from runner.ssh.known_hosts import columns

HOSTS = Listing("hosts", Host, key=(Host.id,))


@dataclass(frozen=True)
class Filter:
    """Which hosts a list contains; a condition that is None is not applied.  Raises: InvalidInput."""

    labels_any: frozenset[str] | None = None
    search: str | None = None  # a part of the name or address

    def __post_init__(self) -> None:
        names.check_choices("labels_any", self.labels_any)

    def conditions(self) -> list[ColumnElement[bool]]:
        """Return the conditions of the filter, all of which must hold."""
        conditions: list[ColumnElement[bool]] = []
        if self.labels_any is not None:
            conditions.append(Host.id.in_(with_any(self.labels_any)))
        if self.search is not None:
            conditions.append(names.contain(self.search, Host.name, Host.address))
        return conditions


def with_any(labels: Collection[str]) -> Select[UUID]:
    """Return a statement that selects the ids of the hosts that have one of the labels."""
    return select(HostLabel.host_id).where(names.is_one_of(HostLabel.label, labels))


@dataclass(frozen=True)
class Changes:
    """What `update` changes.  None leaves a value as it is; `clear_…` removes it.

    A host has one key: a given path replaces a stored key, and a stored key replaces a path.
    """

    name: str | None = None
    address: str | None = None
    port: int | None = None
    user: str | None = None
    ssh_key_path: str | None = None
    clear_ssh_key_path: bool = False
    ssh_key_id: str | None = None
    clear_ssh_key_id: bool = False
    labels: Sequence[str] | None = None
    known_hosts: str | None = None

    def moves(self, host: Host) -> bool:
        """Return whether the address or port of `host` changes, so that its pinned keys are no longer valid."""
        return self.address not in {None, host.address} or self.port not in {None, host.port}


async def get(db: Database, host_id: str) -> Host:
    """Return the host.  Raises: NotFound."""
    async with db.read() as session:
        return await _get(session, host_id)


async def get_by_name(db: Database, name: str) -> Host | None:
    """Return the host with this name; None if it does not exist or is not visible."""
    async with db.read() as session:
        return await session.scalar(select(Host).where(names.equals(Host.name, name)))


async def get_many(db: Database, host_ids: Sequence[UUID]) -> dict[UUID, Host]:
    """Return the existing hosts among `host_ids`, by id."""
    async with db.read() as session:
        hosts = await session.scalars(select(Host).where(Host.id.in_(host_ids)))
        return {host.id: host for host in hosts}


async def create(
    db: Database,
    *,
    name: str,
    transport: HostTransport = HostTransport.SSH,
    address: str | None = None,
    port: int = 22,
    user: str = "root",
    ssh_key_path: str | None = None,
    ssh_key_id: str | None = None,
    labels: Sequence[str] = (),
    known_hosts: str | None = None,
    key: Key | None = None,
) -> Host:
    """Create a host and return it, or return the one that an earlier request with `key` created.

    The host is not contacted before its first run.
    Raises: InvalidInput, NameTaken; NotFound if there is no such SSH key, or the earlier host was deleted.
    """
    # Longer than 40 lines: one transaction, and each of its errors in its place.
    check = Check()
    given = {
        "name": name,
        "transport": transport,
        "address": address,
        "port": port,
        "user": user,
        "ssh_key_path": ssh_key_path,
    }
    # Arguments that older releases lacked count only if given: an older release may have received the first request.
    newer = {"labels": sorted(set(labels)) or None, "ssh_key_id": ssh_key_id, "known_hosts": known_hosts}
    request = Request.of(key, check, given | {name: value for name, value in newer.items() if value is not None})
    check.name("name", name)
    check.labels("labels", labels)
    _check_transport(check, transport, address, ssh_key_path, ssh_key_id=ssh_key_id, known_hosts=known_hosts)
    check.port("port", port)
    check.user("user", user)
    pinned = _pinned(check, known_hosts, address, port)
    check.done()
    host = Host(id=uuid7(), **given, **pinned)
    try:
        async with db.write() as session:
            claim = await idempotency.claim(session, db.keyring, request)
            if claim.earlier:
                return await _get(session, claim.earlier[0])
            if ssh_key_id is not None:
                host.ssh_key_id = await ssh_keys.kept(session, ssh_key_id)
            session.add(host)
            await session.flush()
            await _set_labels(session, host.id, labels)
            claim.made(host.id)
    except IntegrityError as error:
        raise NameTaken(kind="Host", name=name) from error
    return host


async def update(db: Database, host_id: str, changes: Changes) -> Host:
    """Change a host and return it.  A new address or port removes its pinned keys, unless new ones are given.

    Raises: InvalidInput, NotFound, NameTaken, HostHasRunInProgress.
    """
    # Longer than 40 lines: one transaction, and each of its errors in its place.
    check = Check()
    if changes.name is not None:
        check.name("name", changes.name)
    if changes.port is not None:
        check.port("port", changes.port)
    if changes.user is not None:
        check.user("user", changes.user)
    if changes.labels is not None:
        check.labels("labels", changes.labels)
    try:
        async with db.write() as session:
            host = await _get(session, host_id, lock=True)
            if host.transport is HostTransport.LOCAL:
                _check_transport(
                    check,
                    HostTransport.LOCAL,
                    changes.address,
                    changes.ssh_key_path,
                    ssh_key_id=changes.ssh_key_id,
                    known_hosts=changes.known_hosts,
                )
            else:
                address = host.address if changes.address is None else changes.address
                _check_transport(check, HostTransport.SSH, address, changes.ssh_key_path, ssh_key_id=changes.ssh_key_id)
            port = host.port if changes.port is None else changes.port
            pinned = _pinned(check, changes.known_hosts, changes.address or host.address, port)
            check.done()
            if (run := await _active_run(session, host.id)) is not None:
                raise HostHasRunInProgress(id=host_id, run=run)
            _apply(host, changes, pinned)
            if changes.ssh_key_id is not None:
                host.ssh_key_id = await ssh_keys.kept(session, changes.ssh_key_id)
            if changes.labels is not None:
                await _set_labels(session, host.id, changes.labels)
    except IntegrityError as error:
        raise NameTaken(kind="Host", name=str(changes.name)) from error
    return host


async def remove(db: Database, host_id: str) -> UUID:
    """Delete a host that no deployment uses, and return its id.  Raises: NotFound, InUse."""
    async with db.write() as session:
        # Locked, so that no deployment on it can be created at the same time.
        host = await _get(session, host_id, lock=True)
        await refuse_while_used(session, "Host", host_id, Deployment, Deployment.host_id == host.id)
        await session.execute(delete(Host).where(Host.id == host.id))
    return host.id


async def labels_of(db: Database, host_ids: Sequence[UUID]) -> dict[UUID, list[str]]:
    """Return the sorted labels of each host."""
    labels: dict[UUID, list[str]] = defaultdict(list)
    statement = select(HostLabel).where(HostLabel.host_id.in_(host_ids)).order_by(HostLabel.label)
    async with db.read() as session:
        for row in await session.scalars(statement):
            labels[row.host_id].append(row.label)
    return labels


async def _set_labels(session: AsyncSession, host_id: UUID, labels: Sequence[str]) -> None:
    await session.execute(delete(HostLabel).where(HostLabel.host_id == host_id))
    session.add_all(HostLabel(host_id=host_id, label=label) for label in sorted(set(labels)))


async def _get(session: AsyncSession, host_id: str, *, lock: bool = False) -> Host:
    key = ids.parse(host_id)
    host = await session.get(Host, key, with_for_update=lock) if key is not None else None
    if host is None:
        raise NotFound(kind="Host", id=host_id)
    return host


def _pinned(check: Check, known_hosts: str | None, address: str | None, port: int) -> dict[str, str | None]:
    """Return the columns for the given host keys; empty if none are given or the host has no address."""
    if known_hosts is None or address is None:
        return {}
    return columns(check.host_keys("known_hosts", known_hosts, address, port))


def _check_transport(
    check: Check,
    transport: HostTransport,
    address: str | None,
    ssh_key_path: str | None,
    *,
    ssh_key_id: str | None = None,
    known_hosts: str | None = None,
) -> None:
    if transport is HostTransport.SSH:
        if address is None:
            check.add("address", "REQUIRED", "address is required for a host that is reached over SSH.")
        else:
            check.address("address", address)
        if ssh_key_path is not None:
            check.key_path("ssh_key_path", ssh_key_path)
            if ssh_key_id is not None:
                message = "ssh_key_id must not be given together with a path: a host has one key."
                check.add("ssh_key_id", "BOTH", message)
        return
    given = {"address": address, "ssh_key_path": ssh_key_path, "ssh_key_id": ssh_key_id, "known_hosts": known_hosts}
    for argument, value in given.items():
        if value is not None:
            check.add(argument, "LOCAL", f"{argument} must not be given for the server's own machine.")


def _apply(host: Host, changes: Changes, pinned: dict[str, str | None]) -> None:
    if changes.moves(host):
        host.host_key_fingerprint = host.known_hosts = None
    for name, value in pinned.items():
        setattr(host, name, value)
    for name in ("name", "address", "port", "user", "ssh_key_path"):
        value = getattr(changes, name)
        if value is not None:
            setattr(host, name, value)
    if changes.clear_ssh_key_path or changes.ssh_key_id is not None:
        host.ssh_key_path = None
    if changes.clear_ssh_key_id or changes.ssh_key_path is not None:
        host.ssh_key_id = None
    host.updated_at = now()


async def _active_run(session: AsyncSession, host_id: UUID) -> UUID | None:
    """Return the id of the active run of the first deployment on the host that has one; None if none has."""
    # Locked, so that a run that is being started at the same time is seen; in the order in which `runs.start` locks.
    statement = select(Deployment.id, Deployment.status).where(Deployment.host_id == host_id).order_by(Deployment.id)
    for deployment_id, state in (await session.execute(statement.with_for_update(read=True))).all():
        if state is DeploymentStatus.RUNNING:
            return await status.newest_run(session, deployment_id)
    return None
