"""Assembles the parts: data directory, database, engine, schema, and HTTP application."""

import asyncio
import fcntl
import os
import shutil
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

from starlette.applications import Starlette
from starlette.routing import Mount, Route, WebSocketRoute

import schema
from daos.auth.tokens import Authenticator, admin_token
from daos.http.endpoint import GraphQLApp
from daos.http.explorer import IDE
from daos.http.streams import Streams
from daos.monitoring import probes
from daos.parts import Parts, make_start_latency
from daos.settings import ACCEPT_NEW, Settings, docker_environment
from db import migrations
from db.broadcast import Broadcast
from db.database import BrokenReferences, Database, Reserved, UnsupportedDatabase
from db.encryption import Keyring, Secret, write_private
from db.notify import Wire
from runner.engine.base import ServingEngine
from runner.engine.distributed import DistributedEngine
from runner.engine.embedded import EmbeddedEngine
from runner.play import playbooks
from runner.play.launcher import Launcher
from runner.play.play import project_directory
from runner.play.warm import WarmAnsible
from runner.private import NotPrivate, check, sockets
from runner.store import Capacity
from runner.worker import Worker, WorkerSettings

LOCK_TIMEOUT = 15.0  # seconds in which the plays of a killed server must end
LOCK_INTERVAL = 0.1  # seconds


class CannotStart(Exception):
    """The server cannot start; the text is one line for the operator who starts it."""


@dataclass(frozen=True)
class Home:
    """The contents of the data directory besides the database."""

    keyring: Keyring
    admin: Secret
    lock: int  # file descriptor; any process that has it open holds the directory
    node: str  # the unique id of the directory


def settle_in(settings: Settings) -> Home:
    """Create the data directory if it is missing, lock it, and read it.  Raises: CannotStart."""
    if shutil.which("ssh") is None:
        raise CannotStart("ssh is missing; install an OpenSSH client (Debian: openssh-client)")
    with _usable(settings.data_dir):
        lock = os.open(settings.data_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        _take(lock, settings.data_dir)
        node = _node(settings.data_dir / "node-id")
    for place in (settings.run_root, sockets(settings.run_root)):
        try:
            check(place)
        except NotPrivate as error:
            raise CannotStart(str(error)) from error
        except OSError as error:
            raise CannotStart(f"{place} cannot be used for the files of runs: {error.strerror}") from error
    return Home(keyring(settings), admin(settings), lock, node)


def _node(path: Path) -> str:
    if not path.exists():
        with suppress(FileExistsError):
            write_private(path, f"{uuid4()}\n")
    return path.read_text().strip()


def keyring(settings: Settings) -> Keyring:
    """Return the keyring of the database's secrets: the configured one, or one that the first start creates.

    Raises: CannotStart.
    """
    path = key_path(settings)
    with _usable(settings.data_dir):
        try:
            return _shared_keyring(path) if path == settings.secret_key_file else Keyring.open(path)
        except ValueError as error:
            raise CannotStart(f"{path} is not a keyring: {error}") from error


def key_path(settings: Settings) -> Path:
    """Return the path of the keyring file."""
    return settings.secret_key_file if settings.secret_key_file != Path() else settings.data_dir / "secret-key"


def _shared_keyring(path: Path) -> Keyring:
    """Read a configured keyring, which is never created: no other server could read what a new one encrypts."""
    try:
        return Keyring.read(path)
    except OSError as error:
        raise CannotStart(f"DAOS_SECRET_KEY_FILE cannot be read: {error.strerror} ({path})") from error


def admin(settings: Settings) -> Secret:
    """Return the admin token, created at the first start.  Raises: CannotStart."""
    if settings.admin_token.reveal():
        return settings.admin_token
    path = settings.data_dir / "admin-token"
    with _usable(settings.data_dir):
        try:
            return admin_token(path)
        except ValueError as error:
            raise CannotStart(f"{path} is not an access token: {error}") from error


@contextmanager
def _usable(path: Path) -> Iterator[None]:
    """Create the data directory if it is missing, and turn an OSError into one line.  Raises: CannotStart."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        yield
    except OSError as error:
        what = f" ({error.filename})" if error.filename else ""
        raise CannotStart(f"the data directory {path} cannot be used: {error.strerror}{what}") from error


def _take(lock: int, path: Path) -> None:
    """Wait for the lock.  The plays of a killed server hold it until all processes that they started have ended.

    Raises: CannotStart.
    """
    deadline = time.monotonic() + LOCK_TIMEOUT
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline or _is_alive(os.pread(lock, 20, 0)):
                raise CannotStart(f"another daos is using the data directory {path}") from None
            time.sleep(LOCK_INTERVAL)
        else:
            os.ftruncate(lock, 0)
            os.pwrite(lock, str(os.getpid()).encode(), 0)
            return


def _is_alive(pid: bytes) -> bool:
    """Whether the process exists whose pid the last server wrote to the lock file."""
    return pid.isdigit() and int(pid) != os.getpid() and Path("/proc", pid.decode()).exists()


@asynccontextmanager
async def opened(settings: Settings, keyring: Keyring) -> AsyncIterator[Database]:
    """Open the database and migrate it.  Raises: CannotStart."""
    try:
        db = Database(settings.url, keyring)
    except UnsupportedDatabase as error:
        raise CannotStart(str(error)) from error
    try:
        try:
            await migrations.upgrade(db)
        except (migrations.UnknownVersion, migrations.Unavailable, BrokenReferences) as error:
            raise CannotStart(f"the database cannot be used: {error}") from error
        yield db
    finally:
        await db.close()


@contextmanager
def _reserved(db: Database) -> Iterator[None]:
    """Hold a SQLite database exclusively; a PostgreSQL database is shared.  Raises: CannotStart."""
    with ExitStack() as stack:
        try:
            if db.is_sqlite:
                stack.enter_context(db.reserved())
        except Reserved as error:
            raise CannotStart("another daos is playing the runs of this database") from error
        yield


@asynccontextmanager
async def running(
    settings: Settings, home: Home, environment: Mapping[str, str], *, plays: bool
) -> AsyncIterator[Parts]:
    """Run the parts; on exit, runs in progress get `shutdown_grace` to finish.  Raises: CannotStart."""
    async with AsyncExitStack() as stack:
        db = await stack.enter_async_context(opened(settings, home.keyring))
        stack.enter_context(_reserved(db))
        broadcast = Broadcast()
        worker_settings = _worker_settings(settings, home, environment)
        if plays and settings.own_playbooks is not None:
            _check_playbooks(settings.own_playbooks)
        is_warm = settings.warm and plays and settings.ansible_verbosity == "0"
        warm = WarmAnsible(settings.data_dir.absolute() / "warm", settings.cookie, worker_settings.passed_on)
        launcher = Launcher(warm.start if is_warm else None)
        start_latency = make_start_latency()
        worker = Worker(db, broadcast, worker_settings, launcher, start_latency.observe)
        wire = None if db.is_sqlite else Wire(db, broadcast)
        engine = _engine(db, broadcast, worker if plays else None, settings, home)
        async with asyncio.TaskGroup() as group:
            group.create_task(engine.serve(), name="engine")
            beside = [group.create_task(warm.serve(), name="warm Ansible")] if is_warm else []
            if wire is not None:
                beside.append(group.create_task(wire.serve(), name="wire"))
            try:
                yield Parts(db, broadcast, engine, wire, launcher.plays, start_latency)
            finally:
                broadcast.wake_all()
                await asyncio.shield(engine.drain(settings.shutdown_grace))
                for task in beside:  # last, because other servers are notified of the end of the last runs too
                    task.cancel()


def _check_playbooks(own: Path) -> None:
    try:
        playbooks.check(own, project_directory())
    except playbooks.BadPlaybooks as problem:
        raise CannotStart(f"DAOS_PLAYBOOKS cannot be used: {problem}") from problem


def _engine(db: Database, broadcast: Broadcast, worker: Worker | None, settings: Settings, home: Home) -> ServingEngine:
    capacity = Capacity(settings.max_runs, settings.max_runs_per_host)
    if not db.is_sqlite:
        return DistributedEngine(db, broadcast, worker, node=home.node, capacity=capacity, lease=settings.lease)
    if worker is None:
        raise CannotStart(
            "DAOS_PLAY=false requires PostgreSQL, where other processes play runs; the database is SQLite"
        )
    return EmbeddedEngine(db, worker, capacity.runs, capacity.per_host)


def application(
    parts: Parts, authenticator: Authenticator, *, settings: Settings | None = None, streams: Streams | None = None
) -> Starlette:
    """Return the ASGI application for running parts; `state.streams` are its open streams."""
    settings = settings or Settings()
    streams = streams or Streams(authenticator, settings.max_streams, max_cost=settings.max_subscription_cost)
    graphql = GraphQLApp(
        schema.make(limits=settings.limits),
        db=parts.db,
        broadcast=parts.broadcast,
        engine=parts.engine,
        authenticator=authenticator,
        streams=streams,
        transport=settings.transport,
        retention=timedelta(days=settings.audit_days),
    )
    app = Starlette(
        routes=[
            Mount("/graphql/ide", IDE()),
            Route("/graphql", graphql),
            WebSocketRoute("/graphql", graphql),
            *probes.routes(parts),
        ]
    )
    app.state.streams = streams
    return app


def worker_application(parts: Parts, admin: Secret) -> Starlette:
    """Return the ASGI application of a process that only plays runs: its probes and metrics."""
    app = Starlette(routes=probes.routes(parts))
    app.state.streams = Streams(Authenticator(parts.db, admin), 0)
    return app


def _worker_settings(settings: Settings, home: Home, environment: Mapping[str, str]) -> WorkerSettings:
    return WorkerSettings(
        run_root=settings.run_root,
        cookie=settings.cookie,
        timeouts=settings.timeouts,
        accept_new=settings.host_key_policy == ACCEPT_NEW,
        settle=settings.settle_seconds,
        playbooks=settings.own_playbooks,
        passed_on=docker_environment(environment) | {"ANSIBLE_VERBOSITY": settings.ansible_verbosity},
        kept_open=(home.lock,),
    )
