"""A throwaway PostgreSQL cluster of the tests' own."""

import contextlib
import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import sql

from tests.support.port import free_port
from tests.support.requirement import find_program

OWNER = "postgres"  # Debian's system user for it, needed where the tests run as root


@dataclass(frozen=True)
class Postgres:
    """A cluster on the loopback interface, whose superuser has a password of this session."""

    directory: Path
    port: int
    user: str
    password: str
    settings: Sequence[str] = ()  # name=value

    def url(self, database: str) -> str:
        return f"postgresql://{self.user}:{self.password}@127.0.0.1:{self.port}/{database}"

    @contextlib.contextmanager
    def new_database(self) -> Iterator[str]:
        """The URL of an empty database, which is dropped afterwards, also under open connections."""
        name = f"daos_{secrets.token_hex(6)}"
        self._execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            yield self.url(name)
        finally:
            self._execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))

    def start(self) -> None:
        """Accept connections, at the same port as before."""
        settings = [
            f"port={self.port}",
            "listen_addresses=127.0.0.1",
            f"unix_socket_directories={self.directory}",
            *self.settings,
        ]
        options = " ".join(f"-c {setting}" for setting in settings)
        self._control("--log", self.directory / "log", "--options", options, "start")

    def stop(self, mode: str = "immediate") -> None:
        """Close all connections and end; `fast` rolls transactions back, `immediate` is a crash."""
        self._control("--mode", mode, "stop")

    def create(self) -> None:
        """Make the cluster's files."""
        password_file = self.directory / "password"
        password_file.write_text(self.password)
        if os.geteuid() == 0:
            for path in (self.directory, password_file):
                shutil.chown(path, OWNER, OWNER)
        _run(
            "initdb", "--pgdata", self._cluster, "--username", self.user, "--pwfile", password_file,
            "--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C.UTF-8", "--no-sync",
        )  # fmt: skip

    @property
    def _cluster(self) -> Path:
        return self.directory / "cluster"

    def _control(self, *arguments: str | Path) -> None:
        _run("pg_ctl", "--pgdata", self._cluster, "--wait", "--silent", *arguments)

    def _execute(self, statement: sql.Composed) -> None:
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(statement)


def why_missing() -> str | None:
    """Why no PostgreSQL can be started here, None when one can."""
    if _programs() is None:
        return "there is no initdb (Debian: postgresql)"
    if os.geteuid() == 0 and not _has_owner():
        return f"PostgreSQL does not run as root, and there is no user {OWNER}"
    return None


@contextlib.contextmanager
def serve_postgres(*further: str, remembers: bool = False) -> Iterator[Postgres]:
    """A new cluster, without the waits for a disk that make data last; it is gone afterwards.

    `further` are settings of its own, name=value.  One that `remembers` has what was committed also after a crash.
    """
    settings = [
        "fsync=off",
        "full_page_writes=off",
        f"synchronous_commit={'on' if remembers else 'off'}",
        "max_connections=200",
        *further,
    ]
    # Not pytest's directory: only its owner enters that one.
    directory = Path(tempfile.mkdtemp(prefix="daos-postgres-"))
    postgres = Postgres(directory, free_port(), "daos", secrets.token_urlsafe(12), settings)
    try:
        postgres.create()
        postgres.start()
        try:
            yield postgres
        finally:
            postgres.stop()
    finally:
        shutil.rmtree(directory)


def _programs() -> Path | None:
    found = find_program("initdb")
    if found:
        return found.resolve().parent
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return installed[-1].parent if installed else None


def _has_owner() -> bool:
    with contextlib.suppress(KeyError):
        return bool(pwd.getpwnam(OWNER))
    return False


def _run(program: str, *arguments: str | Path) -> None:
    programs = _programs()
    assert programs is not None
    as_root = os.geteuid() == 0
    # No pipes: the server that pg_ctl leaves behind would hold them open.
    with tempfile.TemporaryFile() as output:
        ended = subprocess.run(
            [programs / program, *arguments],
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            user=OWNER if as_root else None,
            group=OWNER if as_root else None,
            extra_groups=[] if as_root else None,
            check=False,
        )
        output.seek(0)
        if ended.returncode:
            raise RuntimeError(f"{program}: {output.read().decode(errors='replace')}")
