"""The migrations make what the models say, once, and what a newer server made stays as it is."""

import asyncio
import sqlite3
import threading
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory
from sqlalchemy import JSON, Connection, String, Uuid, column, delete, func, insert, inspect, select, table, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import undefer
from uuid_utils.compat import uuid7

from db import migrations, status
from db.containers import Container, ContainerHealth, ContainerState
from db.database import BrokenReferences, Database, sqlite_url
from db.encryption import Keyring
from db.models import (
    AuditEntry,
    Base,
    Deployment,
    Host,
    IdempotencyKey,
    Installation,
    LogEntry,
    Package,
    PackageFile,
    Run,
    RunEvent,
    RunPhase,
    RunTrigger,
    Token,
    UTCDateTime,
    now,
)
from db.phase import Phase
from resolvers.tokens import Principal
from runner import store
from tests import factories


def _differences(connection: Connection) -> list[object]:
    def is_ours(name: str | None, kind: str, _parents: object) -> bool:
        return kind != "table" or not (name or "").startswith("procrastinate_")

    context = MigrationContext.configure(connection, opts={"compare_type": True, "include_name": is_ours})
    return list(compare_metadata(context, Base.metadata))


def _indexes(connection: Connection) -> dict[str, str]:
    """Definitions of the indexes by name, as the engine itself tells them."""
    source = {
        "sqlite": "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL",
        "postgresql": "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'"
        " AND tablename NOT LIKE 'procrastinate%'",
    }
    rows = connection.execute(text(source[connection.dialect.name]))
    return {row[0]: " ".join(row[1].split()) for row in rows if row[0] != "alembic_version_pkc"}


async def test_the_migrations_make_the_tables_of_the_models(db: Database) -> None:
    async with db.read() as session:
        connection = await session.connection()
        assert await connection.run_sync(_differences) == []


async def test_the_migrations_make_the_indexes_of_the_models(db_url: str) -> None:
    # What autogenerate does not compare: the condition of a partial index.
    async with factories.database(db_url) as db:
        async with db.write() as session:
            connection = await session.connection()
            await connection.run_sync(Base.metadata.create_all)
            by_models = await connection.run_sync(_indexes)
            await connection.run_sync(Base.metadata.drop_all)
        await migrations.upgrade(db)
        async with db.read() as session:
            by_migrations = await (await session.connection()).run_sync(_indexes)
    assert by_migrations == by_models


async def test_foreign_keys_are_the_models_own(db: Database) -> None:
    # Autogenerate does not compare ON DELETE on SQLite, and it is what makes deletes complete.
    def on_delete(connection: Connection) -> dict[str, str | None]:
        return {
            f"{table}.{key['constrained_columns'][0]}": key["options"].get("ondelete")
            for table in Base.metadata.tables
            for key in inspect(connection).get_foreign_keys(table)
        }

    async with db.read() as session:
        there = await (await session.connection()).run_sync(on_delete)
    assert there == {
        f"{table.name}.{key.parent.name}": key.ondelete
        for table in Base.metadata.tables.values()
        for key in table.foreign_keys
    }


async def test_upgrading_again_changes_nothing(db: Database) -> None:
    host = await factories.host(db)
    await migrations.upgrade(db)
    async with db.read() as session:
        assert (await session.get_one(type(host), host.id)).name == host.name
    assert await migrations.is_current(db)


async def test_an_empty_database_is_not_current(db_url: str) -> None:
    async with factories.database(db_url) as db:
        assert not await migrations.is_current(db)
        assert not await migrations.is_usable(db)


async def test_a_newer_database_is_used_and_left_as_it_is(db_url: str, caplog: pytest.LogCaptureFixture) -> None:
    # One node after the other is upgraded: the last release goes on with the tables of the next one.
    async with factories.database(db_url) as db:
        await migrations.upgrade(db)
        await _set_version(db, "9999")
        await migrations.upgrade(db)
        assert await _version(db) == "9999"
        assert await migrations.is_usable(db)
        assert not await migrations.is_current(db)
    assert "version 9999, of a newer daos" in caplog.text


async def test_an_older_database_is_not_usable_before_it_is_upgraded(db_url: str) -> None:
    async with factories.database(db_url) as db:
        async with db.altering() as connection:
            await connection.run_sync(_upgrade_to, "0001")
        assert not await migrations.is_usable(db)
        await migrations.upgrade(db)
        assert await migrations.is_usable(db)


@pytest.mark.parametrize("version", ["0000", "1975ea83b712"])
async def test_a_database_of_another_program_is_refused(db_url: str, version: str) -> None:
    async with factories.database(db_url) as db:
        await migrations.upgrade(db)
        await _set_version(db, version)
        with pytest.raises(migrations.UnknownVersion, match=f"version {version}, which is not a version of daos"):
            await migrations.upgrade(db)
        assert not await migrations.is_usable(db)


async def test_a_database_server_that_is_away_makes_its_database_unusable() -> None:
    async with factories.database("postgresql://daos@127.0.0.1:1/daos") as db:
        assert not await migrations.is_usable(db)


async def test_every_version_is_a_number_above_the_one_before_it() -> None:
    # By that a server knows a newer database from one of another program.
    scripts = list(ScriptDirectory.from_config(migrations._config()).walk_revisions())[::-1]
    assert [script.revision for script in scripts] == [f"{number:04}" for number in range(1, len(scripts) + 1)]


async def test_servers_that_start_together_upgrade_once(db_url: str) -> None:
    async with AsyncExitStack() as servers:
        starting = [await servers.enter_async_context(factories.database(db_url)) for _ in range(8)]
        await asyncio.gather(*map(migrations.upgrade, starting))
        assert await migrations.is_current(starting[0])


async def test_a_migration_that_fails_leaves_nothing(db_url: str) -> None:
    async with factories.database(db_url) as db:
        async with db.write() as session:
            await session.execute(text("CREATE TABLE tokens (id INTEGER)"))
        with pytest.raises(migrations.Unavailable, match="tokens"):
            await migrations.upgrade(db)
        async with db.read() as session:
            tables = await (await session.connection()).run_sync(lambda c: inspect(c).get_table_names())
    assert tables == ["tokens"]


async def test_a_database_that_cannot_be_opened_is_named_in_one_line(tmp_path: Path) -> None:
    async with factories.database(sqlite_url(tmp_path / "missing" / "daos.db")) as db:
        with pytest.raises(migrations.Unavailable, match=r"\Aunable to open database file\Z"):
            await migrations.upgrade(db)


async def test_a_database_server_that_does_not_answer_is_named_in_one_line() -> None:
    async with factories.database("postgresql://daos@127.0.0.1:1/daos") as db:
        with pytest.raises(migrations.Unavailable) as refused:
            await migrations.upgrade(db)
    assert "\n" not in str(refused.value)
    assert "127.0.0.1" in str(refused.value)


async def test_altering_a_table_keeps_the_rows_that_refer_to_it(db_url: str) -> None:
    async with factories.database(db_url) as db:
        await migrations.upgrade(db)
        package = await factories.package(db, files={"a": "1"})
        async with db.altering() as connection:
            await connection.run_sync(_retype_a_column)
        async with db.read() as session:
            assert [file.package_id for file in await session.scalars(select(PackageFile))] == [package.id]


async def test_runs_of_the_last_release_get_the_usual_priority_also_beside_this_one(db_url: str) -> None:
    columns = ("number", "action", "status", "progress", "epoch")
    typed = (
        column("id", Uuid()),
        column("deployment_id", Uuid()),
        column("services", JSON),
        column("queued_at", UTCDateTime),
    )
    runs = table("runs", *typed, *map(column, columns))

    async def queue(db: Database, number: int, key: UUID) -> None:
        async with db.write() as session:
            given = {
                "action": "UP",
                "status": "SUCCESS",
                "progress": 1.0,
                "services": [],
                "epoch": 1,
                "queued_at": now(),
            }
            await session.execute(insert(runs).values(id=uuid4(), deployment_id=key, number=number, **given))

    async with factories.database(db_url) as db:
        async with db.altering() as connection:
            await connection.run_sync(_upgrade_to, "0002")
        deployment = await _first_deployment(db)
        await queue(db, 1, deployment)
        async with db.altering() as connection:
            await connection.run_sync(_upgrade_to, "0003")
        await queue(db, 2, deployment)
        await migrations.upgrade(db)
        async with db.read() as session:
            found = await session.execute(select(Run.number, Run.priority).order_by(Run.number))
            assert [tuple(row) for row in found] == [(1, 0), (2, 0)]


async def test_a_run_that_waited_for_its_time_is_due(db_url: str) -> None:
    async with factories.database(db_url) as db:
        async with db.altering() as connection:
            await connection.run_sync(_upgrade_to, "0007")
        waiting = await _old_run(db, await _first_deployment(db), not_before=now() + timedelta(days=1))
        await migrations.upgrade(db)
        async with db.read() as session:
            assert list(await store.queued(session, {}, 10, 10)) == [waiting]


async def test_services_of_runs_become_containers(db_url: str) -> None:
    web = {"name": "web", "image": "web:1", "state": "running", "health": "healthy", "exitCode": None}
    job = {"name": "job", "state": "exited", "exitCode": 3}
    async with factories.database(db_url) as db:
        async with db.altering() as connection:
            await connection.run_sync(_upgrade_to, "0007")
        deployment = await _first_deployment(db)
        for number in range(1, 502):  # more than one batch
            services = [web, {**job, "exitCode": number}, "junk", {"name": "ill", "state": "?"}]
            await _old_run(db, deployment, number, status="FAILED", services=services)
        await _old_run(db, deployment, 502)
        await migrations.upgrade(db)
        async with db.read() as session:
            runs = list(await session.scalars(select(Run).order_by(Run.number)))
    for run in runs[:-1]:
        assert run.containers == [
            Container("web", "web", "web:1", ContainerState.RUNNING, ContainerHealth.HEALTHY),
            Container("job", "job", "", ContainerState.EXITED, exit_code=run.number),
        ]
    assert (runs[-1].number, runs[-1].containers, runs[-1].warnings) == (502, [], [])


PAST = [  # action and status of earlier runs; what the status was before a run; which of them is current
    ([], "PENDING", None),
    (["UP SUCCESS", "UP FAILED"], "FAILED", 1),
    (["UP SUCCESS", "UP SUCCESS", "UP UNBEGUN"], "SUCCESS", 2),
    (["UP UNBEGUN"], "PENDING", None),
    (["UP SUCCESS", "UP CANCELED"], "FAILED", 1),
    (["UP SUCCESS", "DOWN SUCCESS", "UP FAILED"], "FAILED", None),
    (["UP SUCCESS", "DOWN FAILED"], "FAILED", 1),
    (["DOWN SUCCESS", "UP SUCCESS"], "SUCCESS", 2),
]


@pytest.mark.parametrize(("past", "before", "current"), PAST)
async def test_earlier_runs_say_what_a_status_was_and_which_run_is_current(
    db_url: str, past: list[str], before: str, current: int | None
) -> None:
    async with factories.database(db_url) as db:
        async with db.altering() as connection:
            await connection.run_sync(_upgrade_to, "0007")
        deployment = await _first_deployment(db)
        numbers: dict[UUID | None, int | None] = {None: None}
        for number, (action, ended) in enumerate(map(str.split, past), start=1):
            has_begun = ended != "UNBEGUN"
            given = {"action": action, "status": ended if has_begun else "CANCELED"}
            begun = {"started_at": now()} if has_begun else {}
            numbers[await _old_run(db, deployment, number, **given, **begun)] = number
        waiting = await _old_run(db, deployment, len(past) + 1)
        async with db.write() as session:
            await session.execute(text("UPDATE deployments SET status = 'RUNNING'"))
        await migrations.upgrade(db)
        async with db.write() as session:
            assert await status.cancel_queued(session, waiting)
            found = await session.get_one(Deployment, deployment, populate_existing=True)
        assert (found.status, numbers[found.current_run_id]) == (before, current)


async def _installations(db: Database) -> list[UUID]:
    async with db.read() as session:
        return list(await session.scalars(select(Installation.id)))


async def test_a_database_is_one_installation_for_all_nodes_that_start_on_it(db_url: str) -> None:
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(factories.database(db_url)) for _ in range(3)]
        await migrations.upgrade(nodes[0])
        [first] = await _installations(nodes[0])
        for node in nodes:
            await migrations.upgrade(node)
            assert await _installations(node) == [first]


async def test_two_databases_are_two_installations(own_sqlite_db: Database, postgresql_db: Database) -> None:
    assert await _installations(own_sqlite_db) != await _installations(postgresql_db)


async def test_a_backup_is_the_same_installation(own_sqlite_db: Database, tmp_path: Path) -> None:
    path = tmp_path / "backup.db"
    with sqlite3.connect(own_sqlite_db.url.database or "") as connection:
        connection.execute("VACUUM INTO ?", (str(path),))
    connection.close()
    async with factories.database(sqlite_url(path)) as backup:
        await migrations.upgrade(backup)
        assert await _installations(backup) == await _installations(own_sqlite_db)


async def test_files_of_packages_keep_their_text_as_bytes(db_url: str) -> None:
    written = table("package_files", column("package_id", Uuid()), column("path"), column("content"))
    texts = {"a": "naïve ☃ 😀\r\n", "empty": "", "number": "0012", "odd": "\\x41 \\101 'q' \x7f\x1b"}
    async with factories.database(db_url) as db:
        async with db.altering() as connection:
            await connection.run_sync(_upgrade_to, "0007")
        package = uuid4()
        async with db.write() as session:
            await session.execute(insert(Package).values(id=package, name="p", version="1", compose_file=""))
            rows = [{"package_id": package, "path": path, "content": content} for path, content in texts.items()]
            await session.execute(insert(written), rows)
        await migrations.upgrade(db)
        async with db.read() as session:
            statement = select(PackageFile).options(undefer(PackageFile.data)).order_by(PackageFile.path)
            files = list(await session.scalars(statement))
    assert {file.path: file.data for file in files} == {path: content.encode() for path, content in texts.items()}
    assert {(file.package_id, file.mode, file.only_if_missing) for file in files} == {(package, 0o644, False)}


async def test_keys_of_requests_stay_those_of_their_tokens(db_url: str) -> None:
    async with factories.database(db_url) as db:
        async with db.altering() as connection:
            await connection.run_sync(_upgrade_to, "0010")
        async with db.write() as session:
            made = [Token(name=name, sha256=name) for name in ("ci", "admin", "oidc:alice")]
            session.add_all(made)
            for name in ("ci", "admin", "oidc:alice", "oidc:bob"):
                session.add(IdempotencyKey(principal=name, mutation="m", key=name, fingerprint="", object_ids=[]))
        await migrations.upgrade(db)
        async with db.read() as session:
            keys = {key.key: key.principal for key in await session.scalars(select(IdempotencyKey))}
    # The admin's own and those of an issuer cannot be told from those of tokens that had their names.
    assert keys == {"ci": Principal("ci", token_id=made[0].id).key} | {
        name: Principal(name).key for name in ("admin", "oidc:alice", "oidc:bob")
    }


async def test_entries_of_the_audit_from_before_are_kept_without_a_tokens_id(db_url: str) -> None:
    typed = (column("id", Uuid()), column("at", UTCDateTime), column("object_ids", JSON))
    entries = table("audit_entries", *typed, *map(column, ("principal", "mutation", "outcome")))
    async with factories.database(db_url) as db:
        async with db.altering() as connection:
            await connection.run_sync(_upgrade_to, "0010")
        old = {"id": uuid4(), "at": now(), "object_ids": [], "principal": "ci", "mutation": "m", "outcome": "OK"}
        async with db.write() as session:
            await session.execute(insert(entries).values(old))
        await migrations.upgrade(db)
        async with db.read() as session:
            [entry] = await session.scalars(select(AuditEntry))
    assert (entry.id, entry.principal, entry.token_id) == (old["id"], "ci", None)


async def test_runs_from_before_were_created_by_whom_the_audit_log_names(db_url: str) -> None:
    async with factories.database(db_url) as db:
        async with db.altering() as connection:
            await connection.run_sync(_upgrade_to, "0007")
        deployment = await _first_deployment(db)
        keys = [str(await _old_run(db, deployment, number, status="SUCCESS")) for number in range(1, 6)]
        async with db.altering() as connection:
            await connection.run_sync(_upgrade_to, "0011")
        one, two, three, refused, _ = keys
        async with db.write() as session:
            for principal, mutation, outcome, object_ids in (
                ("ci", "runDeployment", "OK", [str(deployment), one]),
                *(("other", "createHost", "OK", [str(uuid4())]) for _ in range(500)),  # more than one batch
                ("admin", "runDeployments", "OK", ["no id", str(deployment).upper(), two, three]),
                ("thief", "cancelRun", "OK", [one]),
                ("thief", "runDeployment", "FORBIDDEN", [refused]),
            ):
                given = {"principal": principal, "mutation": mutation, "outcome": outcome, "object_ids": object_ids}
                session.add(AuditEntry(**given))
        await migrations.upgrade(db)
        async with db.read() as session:
            runs = list(await session.scalars(select(Run).order_by(Run.number)))
    assert [run.created_by for run in runs] == ["ci", "admin", "admin", "unknown", "unknown"]
    assert {run.trigger for run in runs} == {RunTrigger.API}


async def test_entries_of_a_log_from_before_keep_their_phase(db_url: str) -> None:
    columns = ("sequence", "level", "task", "message")
    entries = table("log_entries", column("run_id", Uuid()), column("at", UTCDateTime), *map(column, columns))
    labels = ["Prepare", "Build", "Pull", "Up", "Verify", "Down", "Halt", "Settle", "Recover", None, "up", "Wash", ""]
    async with factories.database(db_url) as db:
        async with db.altering() as connection:
            await connection.run_sync(_upgrade_to, "0007")
        run = await _old_run(db, await _first_deployment(db), status="SUCCESS")
        async with db.write() as session:
            given = {"run_id": run, "at": now(), "level": "INFO", "message": "said"}
            rows = [{**given, "sequence": number, "task": label} for number, label in enumerate(labels, start=1)]
            await session.execute(insert(entries), rows)
        await migrations.upgrade(db)
        async with db.read() as session:
            found = list(await session.scalars(select(LogEntry).order_by(LogEntry.sequence)))
    phases = [*Phase, Phase.RECOVER, None, None, None, None]  # Settle was the name of Recover
    assert [(entry.phase, entry.message) for entry in found] == [(phase, "said") for phase in phases]


async def test_runs_from_before_have_one_event_and_no_phases(db_url: str) -> None:
    async with factories.database(db_url) as db:
        async with db.altering() as connection:
            await connection.run_sync(_upgrade_to, "0007")
        deployment, ended_at = await _first_deployment(db), factories.LONG_AGO
        ended = await _old_run(db, deployment, 1, status="SUCCESS", started_at=ended_at)
        queued = await _old_run(db, deployment, 2)
        await migrations.upgrade(db)
        async with db.read() as session:
            events = {event.run_id: (event.sequence, event.at) for event in await session.scalars(select(RunEvent))}
            queued_at = (await session.get_one(Run, queued)).queued_at
            assert await session.scalar(select(func.count()).select_from(RunPhase)) == 0
    assert events == {ended: (1, ended_at), queued: (1, queued_at)}


async def test_a_migration_that_breaks_a_reference_is_undone(sqlite_db: Database) -> None:
    # PostgreSQL checks references all the time.
    await factories.package(sqlite_db, files={"a": "1"})
    with pytest.raises(BrokenReferences):
        async with sqlite_db.altering() as connection:
            await connection.execute(delete(Package))
    async with sqlite_db.read() as session:
        assert await session.scalar(select(func.count()).select_from(Package)) == 1


async def test_foreign_keys_are_in_force_again_after_a_migration(db: Database) -> None:
    with pytest.raises(IntegrityError):
        async with db.write() as session:
            session.add(PackageFile(package_id=uuid4(), path="a", data=b""))


async def _first_deployment(db: Database) -> UUID:
    """A deployment by statements that name only columns of the first tables; gives its id."""
    host, package, deployment = uuid4(), uuid4(), uuid4()
    async with db.write() as session:
        await session.execute(insert(Host).values(id=host, name="h", transport="LOCAL", port=22, user="root"))
        await session.execute(insert(Package).values(id=package, name="p", version="1", compose_file=""))
        given = {"id": deployment, "host_id": host, "package_id": package, "project_name": "p", "status": "SUCCESS"}
        await session.execute(insert(Deployment).values(given))
    return deployment


async def _old_run(db: Database, deployment: UUID, number: int = 1, **values: Any) -> UUID:
    """A run as the tables of version 0007 have it; gives its id."""
    columns = ("number", "action", "status", "reason", "progress", "epoch")
    typed = (column("id", Uuid()), column("deployment_id", Uuid()), column("services", JSON))
    times = (column(name, UTCDateTime) for name in ("queued_at", "started_at", "not_before"))
    runs = table("runs", *typed, *times, *map(column, columns))
    run_id: UUID = uuid7()
    defaults = {"action": "UP", "status": "QUEUED", "services": [], "progress": 0.0, "epoch": 0, "queued_at": now()}
    given = {"id": run_id, "deployment_id": deployment, "number": number, **defaults, **values}
    async with db.write() as session:
        await session.execute(insert(runs).values(given))
    return run_id


async def _set_version(db: Database, version: str) -> None:
    async with db.write() as session:
        await session.execute(text("UPDATE alembic_version SET version_num = :version"), {"version": version})


async def _version(db: Database) -> str | None:
    async with db.read() as session:
        version: str | None = await session.scalar(text("SELECT version_num FROM alembic_version"))
        return version


def _upgrade_to(connection: Connection, revision: str) -> None:
    config = migrations._config()
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


def _retype_a_column(connection: Connection) -> None:
    with Operations(MigrationContext.configure(connection)).batch_alter_table("packages") as batch:
        batch.alter_column("name", type_=String(200))


async def test_a_file_that_cannot_be_opened_leaves_no_thread_behind(tmp_path: Path) -> None:
    db = Database(sqlite_url(tmp_path / "nowhere" / "daos.db"), Keyring.open(tmp_path / "key"))
    before = set(threading.enumerate())
    with pytest.raises(migrations.Unavailable, match="unable to open database file"):
        await migrations.upgrade(db)
    left = [thread.name for thread in threading.enumerate() if thread not in before]
    assert [name for name in left if "connection_worker" in name] == []
    await db.close()
