"""Rows with defaults, in states that the server itself would have made."""

import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from cryptography.fernet import Fernet

from db import models, status
from db.containers import Container, ContainerState
from db.database import Database
from db.encryption import Keyring, Secret
from db.models import DeploymentStatus, FailureReason, LogLevel, RunAction, RunStatus
from db.phase import Phase
from resolvers import private_keys
from resolvers.private_keys import PrivateKey
from runner.compose import file

COMPOSE_FILE = "services:\n  web:\n    image: demo:1\n"
LONG_AGO = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)

Row = TypeVar("Row", bound=models.Base)

_numbers = itertools.count(1)


def keyring(key_id: str = "test") -> Keyring:
    """A keyring with one new key."""
    return Keyring({key_id: Fernet.generate_key().decode()})


@asynccontextmanager
async def database(url: str, keys: Keyring | None = None) -> AsyncIterator[Database]:
    """The database at `url`, as it is."""
    db = Database(url, keys or keyring())
    try:
        yield db
    finally:
        await db.close()


async def ssh_key(db: Database, key: PrivateKey | None = None) -> models.SshKey:
    """A key that is kept, `key` or a new one."""
    private, name = key or private_keys.generate(), f"key-{next(_numbers)}"
    values = {"public_key": f"{private.public} {name}", "fingerprint": private.fingerprint}
    return await _added(db, models.SshKey(name=name, ciphertext=db.keyring.encrypt(private.text), **values))


async def host(db: Database, labels: Sequence[str] = (), **values: Any) -> models.Host:
    """A host that is reached by SSH."""
    number = next(_numbers)
    defaults = {
        "name": f"host-{number}",
        "transport": models.HostTransport.SSH,
        "address": f"host-{number}.example",
        "port": 22,
        "user": "root",
    }
    host = await _added(db, models.Host(**(defaults | values)))
    if labels:
        async with db.write() as session:
            session.add_all(models.HostLabel(host_id=host.id, label=label) for label in labels)
    return host


async def package(
    db: Database,
    files: dict[str, str | bytes] | None = None,
    logins: dict[str, tuple[str, str]] | None = None,
    **values: Any,
) -> models.Package:
    """A package with one service; `logins` are usernames and passwords by registry."""
    defaults = {"name": f"package-{next(_numbers)}", "version": "1", "compose_file": COMPOSE_FILE}
    given = defaults | values
    data = {path: text.encode() if isinstance(text, str) else text for path, text in (files or {}).items()}
    reading = file.read(given["compose_file"], data)
    requirements = [requirement.as_json() for requirement in reading.requirements]
    package = await _added(db, models.Package(requirements=requirements, **given))
    async with db.write() as session:
        session.add_all(
            models.PackageFile(package_id=package.id, path=path, data=content) for path, content in data.items()
        )
        for registry, (username, password) in (logins or {}).items():
            ciphertext = db.keyring.encrypt(Secret(password))
            session.add(
                models.RegistryLogin(package_id=package.id, address=registry, username=username, ciphertext=ciphertext)
            )
    return package


async def deployment(
    db: Database,
    *,
    on: models.Host | None = None,
    of: models.Package | None = None,
    variables: dict[str, str] | None = None,
    secrets: dict[str, str] | None = None,
    **values: Any,
) -> models.Deployment:
    """A deployment that was never run, of a new package on a new host where none is given."""
    target = on or await host(db)
    what = of or await package(db)
    defaults = {"project_name": f"project-{next(_numbers)}", "status": DeploymentStatus.PENDING}
    deployment = models.Deployment(host_id=target.id, package_id=what.id, **(defaults | values))
    async with db.write() as session:
        session.add(deployment)
        await session.flush()
        for name, value in (variables or {}).items():
            session.add(models.Variable(deployment_id=deployment.id, name=name, value=value, secret=False))
        for name, value in (secrets or {}).items():
            ciphertext = db.keyring.encrypt(Secret(value))
            session.add(models.Variable(deployment_id=deployment.id, name=name, ciphertext=ciphertext, secret=True))
        await status.announce(session, deployment.id, DeploymentStatus.PENDING, None)
    return deployment


async def run(
    db: Database,
    of: models.Deployment | None = None,
    to: RunStatus = RunStatus.QUEUED,
    *,
    action: RunAction = RunAction.UP,
    priority: int = 0,
    created_by: str = "test",
    containers: list[Container] | None = None,
) -> models.Run:
    """A run in the status `to`, by the way that leads there.  `of` must have no run in progress."""
    what = of or await deployment(db)
    async with db.write() as session:
        run = await status.start(session, what.id, action, priority=priority, created_by=created_by)
        assert run is not None
        if to is RunStatus.QUEUED:
            return run
        claimed = await status.claim(session, run.id, "worker")
        assert claimed is not None
        if to is RunStatus.SUCCESS and action is RunAction.UP:
            assert await status.make_current(session, run.id, claimed.epoch)
        if to is not RunStatus.RUNNING:
            assert await status.finish(session, run.id, claimed.epoch, end(to, containers or []))
        return await session.get_one(models.Run, run.id, populate_existing=True)


def end(to: RunStatus = RunStatus.SUCCESS, containers: list[Container] | None = None) -> status.End:
    """An end of a run in the status `to`."""
    reasons = {RunStatus.FAILED: FailureReason.TASK_FAILED, RunStatus.CANCELED: FailureReason.CANCELED}
    return status.End(to, reasons.get(to), f"It ended as {to}.", containers or [])


def container(service: str = "web", **values: Any) -> Container:
    """A container that runs."""
    defaults = {"name": f"demo-{service}-1", "image": "demo:1", "state": ContainerState.RUNNING}
    return Container(service=service, **(defaults | values))


async def log(db: Database, of: models.Run, count: int, first: int = 1) -> list[models.LogEntry]:
    """`count` entries of a run's log, with sequences from `first` on."""
    entries = [
        models.LogEntry(
            run_id=of.id,
            sequence=sequence,
            at=LONG_AGO + timedelta(seconds=sequence),
            level=LogLevel.INFO,
            phase=Phase.UP,
            message=f"line {sequence}",
        )
        for sequence in range(first, first + count)
    ]
    async with db.write() as session:
        session.add_all(entries)
    return entries


async def _added(db: Database, row: Row) -> Row:
    async with db.write() as session:
        session.add(row)
    return row
