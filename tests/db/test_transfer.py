"""A SQLite database in PostgreSQL: every row as it was, or none."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from alembic import command
from sqlalchemy import Connection, func, inspect, select, text
from sqlalchemy.orm import undefer

from db import migrations, status, transfer
from db.database import Database, sqlite_url
from db.models import (
    AuditEntry,
    Base,
    Deployment,
    DeploymentStatus,
    Host,
    HostLabel,
    IdempotencyKey,
    Installation,
    LogEntry,
    Role,
    RunAction,
    RunStatus,
    StatusEvent,
    Token,
    Variable,
    Worker,
    now,
)
from db.transfer import BATCH, CannotCopy
from tests import factories

Rows = dict[str, list[dict[str, Any]]]
ODD = "naïve\n\t\\N \\. 'quoted' \"{}\" % :name 🔑 \x7f\x1b"  # what copies of text trip over
ELSEWHERE = datetime(2026, 3, 29, 2, 30, 0, 123456, tzinfo=timezone(timedelta(hours=5, minutes=45)))


@pytest.fixture
async def source(own_sqlite_db: Database) -> Database:
    """A database with rows in every table, more than one batch of log entries, and a last event that is gone."""
    db = own_sqlite_db
    big = await factories.package(
        db,
        files={"a/b.txt": ODD, "big": "ü" * 2_500_000, "binary": bytes(range(256))},
        compose_file=ODD,
        logins={"r.example:5000": ("ü", ODD)},
    )
    key = await factories.ssh_key(db)
    host = await factories.host(
        db, host_key_fingerprint="SHA256:x", known_hosts=ODD, created_at=ELSEWHERE, ssh_key_id=key.id
    )
    deployment = await factories.deployment(
        db, on=host, of=big, variables={"OPEN": ODD, "EMPTY": ""}, secrets={"HIDDEN": "hunter2"}
    )
    containers = [factories.container(image="ü", started_at=ELSEWHERE, ports=("80/tcp",))]
    for to in (RunStatus.SUCCESS, RunStatus.FAILED, RunStatus.CANCELED):
        run = await factories.run(db, deployment, to, containers=containers)
    await factories.log(db, run, 2 * BATCH + 1)
    await factories.run(db, deployment, RunStatus.RUNNING)
    await factories.run(db, to=RunStatus.QUEUED, action=RunAction.DOWN, priority=-100)
    async with db.write() as session:
        session.add(LogEntry(run_id=run.id, sequence=2 * BATCH + 2, level="ERROR", phase=None, message=ODD))
        session.add(Worker(id="w", node="n", name="w", max_runs=8, started_at=now(), seen_at=now()))
        session.add(Token(name="ci", sha256="0" * 64, role=Role.VIEWER, host_labels=["a", ODD], revoked_at=now()))
        session.add(HostLabel(host_id=host.id, label="a"))
        session.add(AuditEntry(principal=ODD, address=None, mutation="m", object_ids=["a", ODD], outcome="OK"))
        session.add(IdempotencyKey(principal="ci", mutation="m", key=ODD, fingerprint="f", object_ids=["a", "b"]))
        await session.execute(text("UPDATE runs SET progress = 0.1 + 0.2 WHERE number = 1"))
    gone = await factories.deployment(db)
    async with db.write() as session:
        assert await status.remove(session, gone.id)
    return db


@pytest.fixture
async def target(postgres_url: str) -> AsyncIterator[Database]:
    async with factories.database(postgres_url) as db:
        yield db


def silent(_table: str, _count: int) -> None:
    """For who wants no news."""


async def rows(db: Database) -> Rows:
    """Every row of every table, as the models have it."""
    async with db.read() as session:
        return {
            mapper.class_.__tablename__: [
                {attribute.key: getattr(row, attribute.key) for attribute in mapper.column_attrs}
                for row in await session.scalars(
                    select(mapper.class_).options(undefer("*")).order_by(*mapper.primary_key)
                )
            ]
            for mapper in Base.registry.mappers
        }


async def tables(db: Database) -> list[str]:
    """The names of all tables that there are."""
    async with db.read() as session:
        return await (await session.connection()).run_sync(lambda connection: inspect(connection).get_table_names())


async def last_event(db: Database) -> int | None:
    async with db.read() as session:
        return await session.scalar(select(func.max(StatusEvent.sequence)))


async def test_every_row_of_every_table_arrives_as_it_was(source: Database, target: Database) -> None:
    before = await rows(source)
    assert [name for name, found in before.items() if not found] == []
    told: list[tuple[str, int]] = []
    await transfer.copy(source, target, lambda table, count: told.append((table, count)))
    assert await rows(target) == before
    assert await rows(source) == before
    assert dict(told) == {name: len(found) for name, found in before.items()}
    assert await migrations.is_current(target)


async def test_a_copied_secret_can_be_read_with_the_same_keyring(source: Database, target: Database) -> None:
    await transfer.copy(source, target, silent)
    async with target.read() as session:
        [ciphertext] = await session.scalars(select(Variable.ciphertext).where(Variable.secret))
    assert source.keyring.decrypt(ciphertext or "").reveal() == "hunter2"


async def test_times_are_those_of_utc(source: Database, target: Database) -> None:
    await transfer.copy(source, target, silent)
    async with target.read() as session:
        times = list(await session.scalars(select(Host.created_at).where(Host.created_at == ELSEWHERE)))
    assert times == [ELSEWHERE]
    assert times[0].tzinfo is UTC


async def test_events_go_on_after_the_last_number_that_was_given(source: Database, target: Database) -> None:
    await transfer.copy(source, target, silent)
    await factories.deployment(source)
    expected = await last_event(source)
    async with target.write() as session:
        there = await session.scalar(select(Deployment.id).limit(1))
        assert there is not None
        await status.announce(session, there, DeploymentStatus.PENDING, None)
    assert await last_event(target) == expected


async def test_a_copy_is_the_same_installation_also_in_a_migrated_target(source: Database, target: Database) -> None:
    async def installations(db: Database) -> list[UUID]:
        async with db.read() as session:
            return list(await session.scalars(select(Installation.id)))

    await migrations.upgrade(target)
    assert await installations(target) != await installations(source)
    await transfer.copy(source, target, silent)
    assert await installations(target) == await installations(source)


async def test_an_empty_database_is_copied_too(own_sqlite_db: Database, target: Database) -> None:
    await transfer.copy(own_sqlite_db, target, silent)
    await factories.run(target)
    assert await last_event(target) == 2


async def test_a_migrated_target_is_as_good_as_an_empty_one(source: Database, target: Database) -> None:
    await migrations.upgrade(target)
    await transfer.copy(source, target, silent)
    assert await rows(target) == await rows(source)


async def test_a_target_with_rows_is_refused_and_the_table_named(source: Database, target: Database) -> None:
    await migrations.upgrade(target)
    await factories.package(target)
    before = await rows(target)
    with pytest.raises(CannotCopy, match="has rows in 'packages'"):
        await transfer.copy(source, target, silent)
    assert await rows(target) == before


async def test_a_second_copy_is_refused(source: Database, target: Database) -> None:
    await transfer.copy(source, target, silent)
    with pytest.raises(CannotCopy, match="has rows in '"):
        await transfer.copy(source, target, silent)
    assert await rows(target) == await rows(source)


async def test_a_target_of_a_newer_daos_is_refused(source: Database, target: Database) -> None:
    await migrations.upgrade(target)
    async with target.write() as session:
        await session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(CannotCopy, match="of a newer daos"):
        await transfer.copy(source, target, silent)


@pytest.mark.parametrize("revision", ["0002", None])
async def test_a_source_of_another_version_is_refused_and_left_as_it_is(
    tmp_path: Path, target: Database, revision: str | None
) -> None:
    async with factories.database(sqlite_url(tmp_path / "old.db")) as old:
        async with old.altering() as connection:
            if revision:
                await connection.run_sync(_upgrade_to, revision)
        before = await tables(old)
        with pytest.raises(CannotCopy, match="`daos migrate`"):
            await transfer.copy(old, target, silent)
        assert await tables(old) == before
    assert await tables(target) == []


def _upgrade_to(connection: Connection, revision: str) -> None:
    config = migrations._config()
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


async def test_a_source_that_is_not_there_is_not_made(tmp_path: Path, target: Database) -> None:
    path = tmp_path / "missing.db"
    async with factories.database(sqlite_url(path)) as missing:
        with pytest.raises(CannotCopy, match=str(path)):
            await transfer.copy(missing, target, silent)
    assert not path.exists()


async def test_a_source_that_is_no_database_is_refused_in_one_line(tmp_path: Path, target: Database) -> None:
    path = tmp_path / "broken.db"
    path.write_bytes(b"no database at all" * 100)
    async with factories.database(sqlite_url(path)) as broken:
        with pytest.raises(CannotCopy, match=r"\Anothing was copied: file is not a database\Z"):
            await transfer.copy(broken, target, silent)


async def test_only_sqlite_is_copied_and_only_to_postgresql(source: Database, target: Database) -> None:
    with pytest.raises(CannotCopy, match="already PostgreSQL"):
        await transfer.copy(target, source, silent)
    with pytest.raises(CannotCopy, match="--to must be postgresql"):
        await transfer.copy(source, source, silent)


async def test_what_a_server_has_is_not_copied(source: Database, target: Database) -> None:
    with source.reserved(), pytest.raises(CannotCopy, match="serves the SQLite database"):
        await transfer.copy(source, target, silent)
    assert await tables(target) == []


def _kill(url: str) -> None:
    """End every other connection to the database at `url`."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


async def test_a_connection_that_breaks_leaves_nothing(source: Database, target: Database, postgres_url: str) -> None:
    told: list[str] = []

    def kill(table: str, _count: int) -> None:
        told.append(table)
        if table == "deployments":
            _kill(postgres_url)

    with pytest.raises(CannotCopy, match=r"\Anothing was copied: [^\n]+\Z"):
        await transfer.copy(source, target, kill)
    assert told[-1] == "deployments"
    assert await tables(target) == []


async def test_a_row_that_postgresql_does_not_take_leaves_nothing(source: Database, target: Database) -> None:
    async with source.write() as session:
        session.add(Token(name="nul \0", sha256="1"))
    with pytest.raises(CannotCopy, match=r"\Anothing was copied: [^\n]*NUL[^\n]*\Z"):
        await transfer.copy(source, target, silent)
    assert await tables(target) == []


async def test_what_another_writes_beside_it_is_found_out(
    source: Database, target: Database, postgres_url: str
) -> None:
    await migrations.upgrade(target)

    def write(table: str, _count: int) -> None:
        if table == "packages":  # which come before the tokens
            with psycopg.connect(postgres_url) as connection:
                connection.execute(
                    "INSERT INTO tokens (id, name, sha256, created_at) VALUES (gen_random_uuid(), 'x', 'x', now())"
                )

    with pytest.raises(CannotCopy, match="'tokens' has 1 rows, and 2 arrived"):
        await transfer.copy(source, target, write)
    async with target.read() as session:
        assert list(await session.scalars(select(Token.name))) == ["x"]
        assert list(await session.scalars(select(Host.name))) == []
