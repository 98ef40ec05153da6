"""The command `daos`."""

# Longer than 300 lines: all arguments of all commands, for one `--help`.

import argparse
import asyncio
import errno
import gc
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from urllib.parse import quote

import uvicorn
from starlette.applications import Starlette

import schema
from daos import __version__
from daos.app import (
    CannotStart,
    Home,
    admin,
    application,
    keyring,
    opened,
    running,
    settle_in,
    worker_application,
)
from daos.auth.oidc import Issuer
from daos.auth.tokens import Authenticator
from daos.commands import secrets
from daos.http.connection import Connection, Socket
from daos.http.explorer import is_built
from daos.http.origin import hosts_by_default
from daos.http.streams import Streams
from daos.monitoring import logs
from daos.settings import BadSetting, Settings, help_text, unknown_names
from db import transfer
from db.database import Database, UnsupportedDatabase
from db.models import Role, now
from db.rotation import CannotRotate
from db.storage import is_full
from db.transfer import CannotCopy
from resolvers import audit, tokens
from resolvers.errors import DaosError, StorageFull

logger = logging.getLogger(__name__)

LAST_PORT = 65535
KEEP_ALIVE = 75  # seconds; longer than clients and proxies keep a connection, or it could close while they use it
DISCONNECT_GRACE = 3  # seconds for open connections to close when the server is stopped
MAX_MESSAGE = 1024 * 1024  # bytes of a WebSocket message


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; an expected error is printed as one line on stderr, with exit status 1."""
    parsed = _parser().parse_args(arguments)
    os.umask(0o077)  # SQLite creates the database, and has no option for its mode
    try:
        settings = Settings.read(os.environ)
        logs.configure(settings.log_level, settings.log_format)
        _warn_of_unknown_settings()
        parsed.run(settings, parsed)
    except (BadSetting, CannotStart, CannotCopy, CannotRotate, DaosError) as error:
        print(f"daos: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except Exception as error:
        if not is_full(error):
            raise
        print(f"daos: {StorageFull()}", file=sys.stderr)
        raise SystemExit(1) from None


def _warn_of_unknown_settings() -> None:
    """Log a warning for each unknown setting: a mistyped one would silently have no effect."""
    for name, similar in unknown_names(os.environ):
        hint = f"did you mean {similar}?" if similar is not None else "`daos serve --help` lists all settings"
        logger.warning("%s is not a setting and has no effect; %s", name, hint)


def _parser() -> argparse.ArgumentParser:
    # Longer than 40 lines: one call for each argument.
    parser = argparse.ArgumentParser(prog="daos", description="Manages Docker Compose deployments through GraphQL.")
    parser.add_argument("--version", action="version", version=f"daos {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    raw = argparse.RawDescriptionHelpFormatter

    serve = commands.add_parser("serve", help="serve the API and play runs", epilog=help_text(), formatter_class=raw)
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on [127.0.0.1]")
    serve.add_argument("--port", default=8000, type=int, help="port to listen on; 0 picks a free one [8000]")
    serve.set_defaults(run=_serve)

    worker = commands.add_parser(
        "worker", help="play runs for the servers of a PostgreSQL database", epilog=help_text(), formatter_class=raw
    )
    worker.add_argument("--host", default="127.0.0.1", help="address of /healthz, /readyz, and /metrics [127.0.0.1]")
    worker.add_argument("--port", default=8001, type=int, help="port of these; 0 picks a free one [8001]")
    worker.set_defaults(run=_work)

    migrate = commands.add_parser("migrate", help="migrate the database to the current schema")
    migrate.set_defaults(run=lambda settings, _: asyncio.run(_migrate(settings)))

    copy = commands.add_parser("copy", help="copy the SQLite database to an empty PostgreSQL database")
    copy.add_argument(
        "--to",
        required=True,
        metavar="URL",
        help="postgresql://…; other users can see a command line, so put the password in PGPASSFILE",
    )
    copy.set_defaults(run=lambda settings, parsed: asyncio.run(_copy(settings, parsed.to)))

    print_schema = commands.add_parser("schema", help="print the GraphQL schema")
    print_schema.set_defaults(run=lambda *_: print(schema.make().as_str()))

    token = commands.add_parser("token", help="print the admin token, or manage other tokens")
    token.set_defaults(run=lambda settings, _: _print_admin_token(settings))
    actions = token.add_subparsers(metavar="ACTION")
    create = actions.add_parser("create", help="create a token and print it; it cannot be shown again")
    create.add_argument("name")
    create.add_argument(
        "--role", type=str.upper, choices=[role.value for role in Role], default="ADMIN", help="[ADMIN]"
    )
    create.add_argument(
        "--label", action="append", metavar="LABEL", help="limit the token to hosts with this label; can be repeated"
    )
    create.add_argument("--days", type=float, help="days after which the token expires [never]")
    create.set_defaults(run=lambda settings, parsed: asyncio.run(_create_token(settings, parsed)))
    listing = actions.add_parser("list", help="list the tokens")
    listing.set_defaults(run=lambda settings, _: asyncio.run(_list_tokens(settings)))
    revoke = actions.add_parser("revoke", help="revoke a token")
    revoke.add_argument("name")
    revoke.set_defaults(run=lambda settings, parsed: asyncio.run(_revoke_token(settings, parsed.name)))
    _add_secrets(commands.add_parser("secrets", help="encrypt secrets with a new key, and retire older keys"))
    log = commands.add_parser("audit", help="print the audit log, one JSON object per line, oldest first")
    log.add_argument(
        "--since", type=_time, metavar="TIME", help="print entries since this time: 2026-01-31, or 2026-01-31T12:00:00Z"
    )
    log.set_defaults(run=lambda settings, parsed: asyncio.run(_print_audit(settings, parsed.since)))
    return parser


def _add_secrets(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    rotate = actions.add_parser(
        "rotate", help="create a key and encrypt everything with it; resumes after an interruption"
    )
    rotate.add_argument("--no-new-key", action="store_true", help="encrypt everything with the first key in the file")
    rotate.set_defaults(
        run=lambda settings, parsed: asyncio.run(
            secrets.renew(settings) if parsed.no_new_key else secrets.rotate(settings)
        )
    )
    retire = actions.add_parser(
        "retire", help="remove all keys except the first; nothing may still be encrypted with them"
    )
    retire.set_defaults(run=lambda settings, _: asyncio.run(secrets.retire(settings)))


def _time(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _serve(settings: Settings, parsed: argparse.Namespace) -> None:
    with bind(parsed.host, parsed.port) as listening:
        home = settle_in(settings)
        if not settings.allowed_hosts:
            settings = replace(settings, allowed_hosts=hosts_by_default(parsed.host))
        port = listening.getsockname()[1]
        host = f"[{parsed.host}]" if ":" in parsed.host else parsed.host
        if not is_built():
            logger.warning(
                "GraphiQL is not built, and its page responds with 503: run scripts/explorer in a checkout of daos and "
                "install daos from there again; the API works without it"
            )
        # In the fragment, which browsers do not send.
        link = f"GraphiQL: http://{host}:{port}/graphql#token={quote(home.admin.reveal())}"
        _log_start("serving", settings)
        asyncio.run(_serve_on(listening, settings, home, link))


def _work(settings: Settings, parsed: argparse.Namespace) -> None:
    with bind(parsed.host, parsed.port) as listening:
        home = settle_in(settings)
        port = listening.getsockname()[1]
        _log_start("playing runs for", settings)
        asyncio.run(_work_on(listening, settings, home, f"Worker: http://{parsed.host}:{port}/readyz"))


def _log_start(what: str, settings: Settings) -> None:
    logger.info("daos %s %s the data directory %s; stop with Ctrl-C", __version__, what, settings.data_dir.absolute())


def bind(host: str, port: int) -> socket.socket:
    """Return a bound socket with an explicit protocol: only then asyncio disables Nagle's algorithm.

    Raises: CannotStart.
    """
    if not 0 <= port <= LAST_PORT:  # getaddrinfo would truncate it to 16 bits
        raise CannotStart(f"cannot listen on {host} port {port}: the port must be 0 to {LAST_PORT}")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
        except OSError:
            listening.close()
            raise
    except UnicodeError as error:
        raise CannotStart(f"cannot listen on {host} port {port}: the host name is invalid") from error
    except OSError as error:
        hint = "; choose another port with --port" if error.errno == errno.EADDRINUSE else ""
        raise CannotStart(f"cannot listen on {host} port {port}: {error.strerror}{hint}") from error
    return listening


class Server(uvicorn.Server):
    """A uvicorn server that ends event streams at shutdown; uvicorn's own would wait for them."""

    def __init__(self, config: uvicorn.Config, streams: Streams, link: str | None) -> None:
        super().__init__(config)
        self._streams = streams
        self._link = link

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and self._link is not None:
            print(self._link, flush=True)  # not earlier: the link must work as soon as it is printed

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._streams.close()
        await super().shutdown(sockets)


def make_server(app: Starlette, settings: Settings, link: str | None = None) -> Server:
    """Return the server for an application of `daos.app`; it prints `link` when it has started."""
    # uvicorn declares a class here, but only calls it.
    transport = settings.transport
    connection: Any = partial(Connection, head_timeout=transport.head_timeout, rest_timeout=transport.body.time)
    config = uvicorn.Config(
        app,
        http=connection,
        log_config=None,
        access_log=False,
        server_header=False,
        ws=Socket,
        ws_max_size=MAX_MESSAGE,
        ws_per_message_deflate=False,  # a compressor would take more memory per socket than its messages
        limit_concurrency=settings.max_connections,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=DISCONNECT_GRACE,
    )
    return Server(config, app.state.streams, link)


async def _serve_on(listening: socket.socket, settings: Settings, home: Home, link: str) -> None:
    async with running(settings, home, os.environ, plays=settings.play) as parts:
        issuer = None if settings.trust is None else Issuer(settings.trust)
        authenticator = Authenticator(parts.db, home.admin, issuer)
        app = application(parts, authenticator, settings=settings)
        await _answer(listening, settings, app, link)


async def _work_on(listening: socket.socket, settings: Settings, home: Home, link: str) -> None:
    async with running(settings, home, os.environ, plays=True) as parts:
        await _answer(listening, settings, worker_application(parts, home.admin), link)


async def _answer(listening: socket.socket, settings: Settings, app: Starlette, link: str) -> None:
    """Serve the application until SIGTERM or SIGINT."""
    # uvicorn raises the signal again after it has stopped serving; the default handler would then end the process
    # before the shutdown grace of the runs.
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, lambda: None)
    # These objects live until the end; traversing them in each full collection would pause the server for 0.1 s.
    gc.collect()
    gc.freeze()
    await make_server(app, settings, link).serve(sockets=[listening])


async def _migrate(settings: Settings) -> None:
    async with opened(settings, keyring(settings)):
        print("The database is up to date.")


async def _copy(settings: Settings, url: str) -> None:
    keys = keyring(settings)
    try:
        source, target = Database(settings.url, keys), Database(url, keys)
    except UnsupportedDatabase as error:
        raise CannotCopy(str(error)) from error
    try:
        await transfer.copy(source, target, lambda table, count: print(f"{table}: {count} rows", flush=True))
    finally:
        await source.close()
        await target.close()
    print("All rows are copied; the SQLite database is unchanged.")
    print("Set DAOS_DATABASE_URL to the URL of the PostgreSQL database, keep the data directory, and start daos.")


def _print_admin_token(settings: Settings) -> None:
    is_new = not settings.data_dir.exists()
    print(admin(settings).reveal())
    if is_new:
        where = settings.data_dir.absolute()
        print(f"daos: created the data directory {where}; set DAOS_DATA_DIR to use a server's", file=sys.stderr)


async def _create_token(settings: Settings, parsed: argparse.Namespace) -> None:
    expires_at = None if parsed.days is None else now() + timedelta(days=parsed.days)
    async with _recorded(settings, "createToken") as db:
        _, secret = await tokens.create(db, parsed.name, Role(parsed.role), parsed.label, expires_at)
        print(secret.reveal())


async def _list_tokens(settings: Settings) -> None:
    async with opened(settings, keyring(settings)) as db:
        listed = await tokens.list_all(db)
        if not listed:
            where = settings.data_dir.absolute()
            print(f"daos: no tokens besides the admin token in the data directory {where}", file=sys.stderr)
        for token in listed:
            hosts = f" on {','.join(token.host_labels)}" if token.host_labels is not None else ""
            times = {"created": token.created_at, "expires": token.expires_at, "revoked": token.revoked_at}
            columns = "".join(f"  {what} {moment:%Y-%m-%d %H:%M}Z" for what, moment in times.items() if moment)
            print(f"{token.name}  {token.role}{hosts}{columns}")


async def _print_audit(settings: Settings, since: datetime | None) -> None:
    async with opened(settings, keyring(settings)) as db:
        async for entry in audit.export(db, since):
            print(json.dumps(entry))


@asynccontextmanager
async def _recorded(settings: Settings, mutation: str) -> AsyncIterator[Database]:
    """Open the database for a change that is recorded in the audit log."""
    deed = audit.Deed(audit.COMMAND_LINE, None, None, mutation, [], timedelta(days=settings.audit_days))
    async with opened(settings, keyring(settings)) as db:
        yield db.witnessed(deed.witness)


async def _revoke_token(settings: Settings, name: str) -> None:
    async with _recorded(settings, "revokeToken") as db:
        await tokens.revoke(db, name)
        print(f"Token '{name}' was revoked.")
