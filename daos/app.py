"""Puts the parts together: database, engine, schema and HTTP."""

import asyncio
import fcntl
import os
import shutil
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute

import schema
from daos.auth import Authenticator, admin_token
from daos.http import GraphQLApp
from daos.ide import IDE
from daos.metrics import Metrics
from daos.settings import Settings, docker_environment
from daos.streams import Streams
from db import migrations
from db.encryption import Keyring, Secret
from db.engine import BrokenReferences, Database, Reserved, UnsupportedDatabase
from runner.broadcast import Broadcast
from runner.engine import EmbeddedEngine
from runner.keeper import Keeper
from runner.wire import Wire
from runner.worker import Worker, WorkerSettings

LOCK_TIMEOUT = 15.0  # seconds that a killed server's plays have to end
LOCK_INTERVAL = 0.1  # seconds


class CannotStart(Exception):
    """Why the server cannot start, as one line for the person who starts it."""


@dataclass(frozen=True)
class Home:
    """What the data directory holds besides the database."""

    keyring: Keyring
    admin: Secret
    lock: int  # descriptor; whoever has it open holds the directory


def settle_in(settings: Settings) -> Home:
    """Make the data directory this server's own.  Raises: CannotStart."""
    if shutil.which("ssh") is None:
        raise CannotStart("ssh is missing; install an OpenSSH client (Debian: openssh-client)")
    with _usable(settings.data_dir):
        lock = os.open(settings.data_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        _take(lock, settings.data_dir)
    return Home(keyring(settings), admin(settings), lock)


def keyring(settings: Settings) -> Keyring:
    """The keyring of the database's secrets, made at the first start.  Raises: CannotStart."""
    path = settings.data_dir / "secret-key"
    with _usable(settings.data_dir):
        try:
            return Keyring.open(path)
        except ValueError as error:
            raise CannotStart(f"{path} is no keyring: {error}") from error


def admin(settings: Settings) -> Secret:
    """The admin's token, made at the first start.  Raises: CannotStart."""
    if settings.admin_token.reveal():
        return settings.admin_token
    path = settings.data_dir / "admin-token"
    with _usable(settings.data_dir):
        try:
            return admin_token(path)
        except ValueError as error:
            raise CannotStart(f"{path} is no access token: {error}") from error


@contextmanager
def _usable(path: Path) -> Iterator[None]:
    """Make the data directory where it is not there, and say in one line what is wrong with it."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        yield
    except OSError as error:
        what = f" ({error.filename})" if error.filename else ""
        raise CannotStart(f"the data directory {path} cannot be used: {error.strerror}{what}") from error


def _take(lock: int, path: Path) -> None:
    """Wait for the lock.  The plays of a killed server hold it until all that they started has ended."""
    deadline = time.monotonic() + LOCK_TIMEOUT
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline or _is_alive(os.pread(lock, 20, 0)):
                raise CannotStart(f"another daos serves the data directory {path}") from None
            time.sleep(LOCK_INTERVAL)
        else:
            os.ftruncate(lock, 0)
            os.pwrite(lock, str(os.getpid()).encode(), 0)
            return


def _is_alive(pid: bytes) -> bool:
    """Whether there is a process of the pid that the last server has noted in its lock."""
    return pid.isdigit() and int(pid) != os.getpid() and Path("/proc", pid.decode()).exists()


@asynccontextmanager
async def opened(settings: Settings, keyring: Keyring) -> AsyncIterator[Database]:
    """The database, migrated.  Raises: CannotStart."""
    try:
        db = Database(settings.url, keyring)
    except UnsupportedDatabase as error:
        raise CannotStart(str(error)) from error
    try:
        try:
            await migrations.upgrade(db)
        except (migrations.NewerDatabase, migrations.Unavailable, BrokenReferences) as error:
            raise CannotStart(f"the database cannot be used: {error}") from error
        yield db
    finally:
        await db.close()


@asynccontextmanager
async def _reserved(db: Database) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        try:
            await stack.enter_async_context(db.reserved())
        except Reserved as error:
            raise CannotStart("another daos plays the runs of this database") from error
        yield


@asynccontextmanager
async def running(settings: Settings, home: Home, environment: Mapping[str, str]) -> AsyncIterator[Starlette]:
    """The application, with the engine beside it; at the end its runs get their grace.  Raises: CannotStart."""
    async with opened(settings, home.keyring) as db, _reserved(db):
        broadcast = Broadcast()
        worker_settings = _worker_settings(settings, home, environment)
        keeper = Keeper(
            settings.data_dir.absolute() / "warm", settings.cookie, worker_settings.passed_on, warm=settings.warm
        )
        worker = Worker(db, broadcast, worker_settings, keeper)
        engine = EmbeddedEngine(db, worker, settings.max_runs, settings.max_runs_per_host)
        async with asyncio.TaskGroup() as group:
            group.create_task(engine.serve(), name="engine")
            beside = [group.create_task(keeper.serve(), name="warm Ansible")]
            if not db.is_sqlite:
                beside.append(group.create_task(Wire(db, broadcast).serve(), name="wire"))
            try:
                authenticator = Authenticator(db, home.admin)
                yield application(db, broadcast, engine, authenticator, settings=settings, plays=keeper.plays)
            finally:
                broadcast.wake_all()
                await asyncio.shield(engine.drain(settings.shutdown_grace))
                for task in beside:  # also the ends of the last runs are news for others
                    task.cancel()


def application(
    db: Database,
    broadcast: Broadcast,
    engine: EmbeddedEngine,
    authenticator: Authenticator,
    *,
    settings: Settings | None = None,
    streams: Streams | None = None,
    plays: Mapping[str, int] | None = None,
) -> Starlette:
    """The ASGI application over parts that run already; `state.streams` are its open streams."""
    settings = settings or Settings()
    streams = streams or Streams(authenticator, settings.max_streams)
    graphql = GraphQLApp(
        schema.make(limits=settings.limits),
        db=db,
        broadcast=broadcast,
        engine=engine,
        authenticator=authenticator,
        streams=streams,
        transport=settings.transport,
    )
    metrics = Metrics(db, plays or {})

    async def healthz(_request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_request: Request) -> Response:
        if engine.ready and await migrations.is_current(db):
            return PlainTextResponse("ready\n")
        return PlainTextResponse("not ready\n", 503)

    async def scrape(_request: Request) -> Response:
        return await metrics.response()

    app = Starlette(
        routes=[
            Mount("/graphql/ide", IDE()),
            Route("/graphql", graphql),
            WebSocketRoute("/graphql", graphql),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/metrics", scrape),
        ]
    )
    app.state.streams = streams
    return app


def _worker_settings(settings: Settings, home: Home, environment: Mapping[str, str]) -> WorkerSettings:
    return WorkerSettings(
        run_root=settings.run_root,
        cookie=settings.cookie,
        timeouts=settings.timeouts,
        settle=settings.settle_seconds,
        passed_on=docker_environment(environment),
        held=(home.lock,),
    )
