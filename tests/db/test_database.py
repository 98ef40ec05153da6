"""Transactions on both engines, and what makes SQLite serve many at once."""

import asyncio
import gc
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import anyio
import pytest
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import event, func, select, text, update
from sqlalchemy.exc import DBAPIError

from db.database import LINK, Database, Reserved, UnsupportedDatabase, sqlite_url
from db.models import Host, Token
from db.sqlite import BUSY_TIMEOUT
from tests import factories
from tests.support.requirement import require

WRITERS = 20

# Another process, as `daos token create` is one; it says when it has begun.
OTHER_WRITER = """
import sqlite3, sys, uuid
connection = sqlite3.connect(sys.argv[1], timeout=30, isolation_level=None)
for number in range(int(sys.argv[2])):
    connection.execute("BEGIN IMMEDIATE")
    connection.execute(
        "INSERT INTO tokens (id, name, sha256, created_at) VALUES (?, ?, ?, '2026-01-31 12:00:00')",
        (uuid.uuid4().hex, f"other-{number}", f"other-{number}"),
    )
    connection.execute("COMMIT")
    if number == 0:
        print("writing", flush=True)
"""


@pytest.mark.parametrize(
    "url",
    [
        "mysql://localhost/daos",
        "oracle+cx_oracle://localhost",
        "no url",
        "",
        "postgresql://localhost:port/daos",
        "postgresql://user:p@ssword@localhost/daos",
        "sqlite://daos.db",
        "sqlite://user:password@/daos.db",
    ],
)
def test_another_database_is_refused(url: str) -> None:
    with pytest.raises(UnsupportedDatabase):
        Database(url, factories.keyring())


@pytest.mark.parametrize(
    ("url", "driver"),
    [
        ("postgresql://localhost/daos", "postgresql+psycopg"),
        ("postgres://localhost/daos", "postgresql+psycopg"),
        ("postgresql+asyncpg://localhost/daos", "postgresql+psycopg"),
        ("sqlite:///daos.db", "sqlite+aiosqlite"),
    ],
)
def test_the_driver_is_the_servers_choice(url: str, driver: str) -> None:
    assert Database(url, factories.keyring()).url.drivername == driver


@pytest.mark.parametrize(
    ("url", "parameters"),
    [
        (
            "postgresql://me:p%40ss%20'word'@db.example:5433/daos?sslmode=require",
            {"host": "db.example", "port": "5433", "user": "me", "password": "p@ss 'word'", "dbname": "daos"},
        ),
        (
            "postgresql:///daos?host=one:1&host=two:2&sslmode=require",
            {"host": "one,two", "port": "1,2", "dbname": "daos"},
        ),
        ("postgresql:///daos?host=/run/postgresql&sslmode=require", {"host": "/run/postgresql", "dbname": "daos"}),
    ],
    ids=["password", "two hosts", "socket"],
)
def test_psycopg_connects_as_the_url_says(url: str, parameters: dict[str, str]) -> None:
    conninfo = Database(url, factories.keyring()).conninfo
    assert conninfo_to_dict(conninfo.reveal()) == {**LINK, **parameters, "sslmode": "require"}
    assert str(conninfo) == "********"


def test_a_dead_link_to_postgresql_is_noticed_in_seconds_unless_the_url_says_when() -> None:
    url = "postgresql://db.example/daos?connect_timeout=3"
    said = conninfo_to_dict(Database(url, factories.keyring()).conninfo.reveal())
    assert said["connect_timeout"] == "3"
    assert said["tcp_user_timeout"] == "15000"


async def test_any_path_can_be_a_sqlite_url(tmp_path: Path) -> None:
    path = tmp_path / "a b#c?d%20e&f=ü.db"
    async with factories.database(sqlite_url(path)) as db, db.write() as session:
        await session.execute(text("CREATE TABLE things (id INTEGER)"))
    assert path.exists()


async def test_sqlite_is_set_up_for_a_server(sqlite_db: Database) -> None:
    async def pragma(session_of: str, name: str) -> object:
        async with getattr(sqlite_db, session_of)() as session:
            return await session.scalar(text(f"PRAGMA {name}"))

    for session_of in ("read", "write"):
        assert await pragma(session_of, "journal_mode") == "wal"
        assert await pragma(session_of, "foreign_keys") == 1
        assert await pragma(session_of, "busy_timeout") == BUSY_TIMEOUT
    assert await pragma("write", "synchronous") == 2  # FULL
    assert await pragma("read", "query_only") == 1


async def test_what_a_block_wrote_is_there_after_it(db: Database) -> None:
    host = await factories.host(db)
    async with db.read() as session:
        assert await session.get(Host, host.id) is not None


async def test_a_block_that_raises_leaves_nothing(db: Database) -> None:
    async def fail() -> None:
        async with db.write() as session:
            session.add(Token(name="name", sha256="sha256"))
            await session.flush()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    async with db.read() as session:
        assert await session.scalar(select(func.count()).select_from(Token)) == 0


async def test_a_reader_cannot_write(db: Database) -> None:
    host = await factories.host(db)

    async def write() -> None:
        async with db.read() as session:
            await session.execute(update(Host).where(Host.id == host.id).values(name="other"))

    with pytest.raises(DBAPIError, match=r"read-?only"):
        await write()


async def test_a_writer_can_write_after_a_reader_had_its_connection(db: Database) -> None:
    # On PostgreSQL both take connections from one pool, and "read only" must not stick to one.
    for _ in range(3):
        async with db.read() as session:
            await session.execute(select(Host.id))
        await factories.host(db)


async def test_a_reader_sees_one_state(db: Database) -> None:
    count = select(func.count()).select_from(Host)
    async with db.read() as session:
        assert await session.scalar(count) == 0
        await factories.host(db)
        assert await session.scalar(count) == 0
    async with db.read() as session:
        assert await session.scalar(count) == 1


async def test_writers_on_sqlite_wait_for_each_other(sqlite_db: Database) -> None:
    # Each reads before it writes: a transaction that began as a reader would be refused, or lose what others wrote.
    host = await factories.host(sqlite_db, port=1)

    async def count_up(times: int) -> None:
        for _ in range(times):
            async with sqlite_db.write() as session:
                row = await session.get_one(Host, host.id)
                row.port += 1

    await asyncio.gather(*(count_up(25) for _ in range(WRITERS)))
    async with sqlite_db.read() as session:
        assert (await session.get_one(Host, host.id)).port == 1 + 25 * WRITERS


async def test_readers_do_not_wait_for_a_writer(db: Database) -> None:
    host = await factories.host(db, name="before")
    async with db.write() as session:
        (await session.get_one(Host, host.id)).name = "after"
        await session.flush()
        async with asyncio.timeout(5), db.read() as reader:
            assert (await reader.get_one(Host, host.id)).name == "before"


async def test_writers_and_another_process_wait_for_each_other(own_sqlite_db: Database, tmp_path: Path) -> None:
    writes = 200
    command = [sys.executable, "-c", OTHER_WRITER, str(tmp_path / "daos.db"), str(writes)]
    other = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    assert other.stdout is not None
    assert await other.stdout.readline() == b"writing\n"

    async def write(writer: int) -> None:
        for number in range(5):
            async with own_sqlite_db.write() as session:
                session.add(Token(name=f"{writer}-{number}", sha256=uuid4().hex))

    await asyncio.gather(*(write(writer) for writer in range(WRITERS)))
    assert await other.wait() == 0
    async with own_sqlite_db.read() as session:
        assert await session.scalar(select(func.count()).select_from(Token)) == writes + 5 * WRITERS


async def test_a_write_is_in_the_file_when_its_block_ends(own_sqlite_db: Database, tmp_path: Path) -> None:
    host = await factories.host(own_sqlite_db)
    connection = sqlite3.connect(tmp_path / "daos.db")
    assert connection.execute("SELECT name FROM hosts").fetchall() == [(host.name,)]
    connection.close()


async def test_one_server_at_a_time_plays_the_runs_of_a_sqlite_database(own_sqlite_db: Database) -> None:
    async with factories.database(own_sqlite_db.url.render_as_string()) as other:
        with own_sqlite_db.reserved(), pytest.raises(Reserved), other.reserved():
            pass
        with other.reserved():
            pass


def _by_symlink(path: Path, directory: Path) -> str:
    (other := directory / "other.db").symlink_to(path)
    return sqlite_url(other)


def _by_link_of_the_directory(path: Path, directory: Path) -> str:
    (other := directory / "directory").symlink_to(path.parent)
    return sqlite_url(other / path.name)


def _by_hard_link(path: Path, directory: Path) -> str:
    os.link(path, other := directory / "other.db")
    return sqlite_url(other)


def _by_another_way(path: Path, directory: Path) -> str:
    (directory / "below").mkdir()
    return sqlite_url(Path(f"{directory}/below/../{path.name}"))


def _by_uri(path: Path, _: Path) -> str:
    return f"sqlite:///file:{path}?uri=true"


def _by_bind_mount(path: Path, directory: Path) -> str:
    (other := directory / "mounted.db").touch()
    mounted = subprocess.run(["mount", "--bind", path, other], check=False, capture_output=True, text=True)
    require("tmpfs", mounted.stderr.strip() or None)
    return sqlite_url(other)


WAYS = [_by_symlink, _by_link_of_the_directory, _by_hard_link, _by_another_way, _by_uri, _by_bind_mount]


@pytest.mark.parametrize("way", WAYS)
async def test_a_sqlite_database_is_one_by_whatever_path_it_is_reached(
    own_sqlite_db: Database, tmp_path: Path, way: Callable[[Path, Path], str]
) -> None:
    url = way(Path(own_sqlite_db.url.database or ""), tmp_path)
    try:
        async with factories.database(url) as other:
            with own_sqlite_db.reserved(), pytest.raises(Reserved), other.reserved():
                pass
            with other.reserved(), pytest.raises(Reserved), own_sqlite_db.reserved():
                pass
    finally:
        if way is _by_bind_mount:
            await anyio.run_process(["umount", str(tmp_path / "mounted.db")])


async def test_holding_a_database_does_not_disturb_its_transactions(own_sqlite_db: Database) -> None:
    path = own_sqlite_db.url.database
    write = "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0).execute('BEGIN IMMEDIATE')"
    for _ in range(2):  # also after it was let go of: to close a descriptor would end SQLite's own locks
        with own_sqlite_db.reserved():
            pass
        async with own_sqlite_db.write() as session:
            await session.execute(update(Host).values(name="x"))
            command = [sys.executable, "-c", write, str(path)]
            other = await asyncio.to_thread(subprocess.run, command, check=False, capture_output=True, text=True)
            assert "database is locked" in other.stderr


@pytest.mark.parametrize("kind", ["read", "write"])
async def test_a_transaction_that_is_cancelled_at_its_end_leaves_its_connection_whole(
    db: Database, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    async def look() -> None:
        async with db.read() if kind == "read" else db.write() as session:
            await session.execute(text("SELECT 1"))

    looking = asyncio.create_task(look())
    engine = (db._reader if kind == "read" else db._writer).sync_engine
    event.listen(engine, "reset", lambda *_: looking.cancel(), once=True)  # as its connection goes back to the pool
    await asyncio.wait({looking})
    assert looking.cancelled()
    await look()
    assert not [record.message for record in caplog.records if record.levelname == "ERROR"]


async def test_who_gives_up_on_a_database_that_fails_then_leaves_no_complaint() -> None:
    complaints: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context["message"]))
    is_asked, is_given_up = asyncio.Event(), asyncio.Event()

    async def fail(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        is_asked.set()
        await is_given_up.wait()
        writer.close()

    async with await asyncio.start_server(fail, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with factories.database(f"postgresql://daos@127.0.0.1:{port}/daos?sslmode=disable") as failing:

            async def look() -> None:
                async with failing.read():
                    pass

            looking = asyncio.create_task(look())
            await is_asked.wait()
            looking.cancel()
            await asyncio.sleep(0)
            is_given_up.set()
            await asyncio.wait({looking})
            assert looking.cancelled()
            del looking
            gc.collect()
    assert complaints == []


@pytest.mark.parametrize("kind", ["read", "write"])
async def test_a_transaction_that_is_cancelled_again_and_again_leaves_its_connection_whole(
    db: Database, kind: str
) -> None:
    complaints: list[str] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: complaints.append(context["message"]))

    async def look() -> None:
        async with db.read() if kind == "read" else db.write() as session:
            await session.execute(text("SELECT 1"))
            await session.execute(text("SELECT 2"))

    for turns in range(50):
        async with anyio.create_task_group() as group:
            group.start_soon(look)
            for _ in range(turns):
                await asyncio.sleep(0)
            group.cancel_scope.cancel()
    gc.collect()
    await look()
    assert complaints == []
