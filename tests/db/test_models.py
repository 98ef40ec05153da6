"""What the columns' types promise on both engines."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError, StatementError

from db.database import Database
from db.models import Deployment, Host, LogEntry, PackageFile, Run, RunAction, RunStatus, StatusEvent, Token, Variable
from tests import factories


async def test_ids_are_version_7_and_grow(db: Database) -> None:
    made = [(await factories.host(db)).id for _ in range(50)]
    assert {key.version for key in made} == {7}
    async with db.read() as session:
        by_id = list(await session.scalars(select(Host.id).order_by(Host.id)))
    assert by_id == made


@pytest.mark.parametrize("zone", [UTC, timezone(timedelta(hours=5, minutes=30)), timezone(timedelta(hours=-8))])
async def test_times_come_back_in_utc(db: Database, zone: timezone) -> None:
    moment = datetime(2026, 3, 29, 1, 59, 59, 123456, tzinfo=zone)
    host = await factories.host(db, created_at=moment)
    async with db.read() as session:
        stored = await session.scalar(select(Host.created_at).where(Host.id == host.id))
    assert stored == moment
    assert stored.tzinfo is UTC


async def test_times_are_compared_as_moments(db: Database) -> None:
    noon = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
    host = await factories.host(db, created_at=noon)
    an_hour_before = datetime(2026, 1, 31, 16, 30, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    async with db.read() as session:
        assert await session.scalar(select(Host.id).where(Host.created_at > an_hour_before)) == host.id


async def test_a_time_without_a_zone_is_refused(db: Database) -> None:
    with pytest.raises(StatementError, match="a stored time needs a time zone"):
        await factories.host(db, created_at=datetime(2026, 1, 31))  # noqa: DTZ001 - that is the test


async def test_a_time_that_is_not_there_stays_none(db: Database) -> None:
    async with db.write() as session:
        session.add(Token(name="token", sha256="sha256"))
    async with db.read() as session:
        assert (await session.scalars(select(Token.revoked_at))).all() == [None]


async def test_deleting_a_deployment_takes_all_that_is_its_own(db: Database) -> None:
    kept = await factories.deployment(db, variables={"KEPT": "1"})
    await factories.log(db, await factories.run(db, kept, RunStatus.SUCCESS), 3)
    gone = await factories.deployment(db, variables={"GONE": "1"}, secrets={"SECRET": "1"})
    await factories.log(db, await factories.run(db, gone, RunStatus.SUCCESS), 3)
    await factories.log(db, await factories.run(db, gone, RunStatus.FAILED), 3)
    async with db.write() as session:
        await session.delete(await session.get_one(Deployment, gone.id))
    async with db.read() as session:
        assert (await session.scalars(select(Deployment.id))).all() == [kept.id]
        assert (await session.scalars(select(Variable.name))).all() == ["KEPT"]
        [run] = await session.scalars(select(Run))
        assert run.deployment_id == kept.id
        assert (await session.scalars(select(LogEntry.run_id))).all() == [run.id] * 3
        assert set(await session.scalars(select(StatusEvent.deployment_id))) == {kept.id}


async def test_deleting_a_package_takes_its_files(db: Database) -> None:
    package = await factories.package(db, files={"a": "1", "b": "2"})
    async with db.write() as session:
        await session.delete(package)
    async with db.read() as session:
        assert (await session.scalars(select(PackageFile.path))).all() == []


@pytest.mark.parametrize("part", ["host_id", "package_id"])
async def test_what_a_deployment_names_cannot_be_deleted(db: Database, part: str) -> None:
    deployment = await factories.deployment(db)
    entity = Host if part == "host_id" else type(await factories.package(db))

    async def delete() -> None:
        async with db.write() as session:
            await session.delete(await session.get_one(entity, getattr(deployment, part)))

    with pytest.raises(IntegrityError):
        await delete()


@pytest.mark.parametrize("first", [RunStatus.QUEUED, RunStatus.RUNNING])
@pytest.mark.parametrize("second", [RunStatus.QUEUED, RunStatus.RUNNING])
async def test_a_deployment_has_one_active_run(db: Database, first: RunStatus, second: RunStatus) -> None:
    deployment = await factories.deployment(db)
    await factories.run(db, deployment, RunStatus.FAILED)  # ended ones do not count

    def run(number: int, status: RunStatus) -> Run:
        return Run(deployment_id=deployment.id, number=number, action=RunAction.UP, status=status)

    async def add(run: Run) -> None:
        async with db.write() as session:
            session.add(run)

    await add(run(2, first))
    await add(run(3, RunStatus.CANCELED))
    with pytest.raises(IntegrityError):
        await add(run(4, second))
    await factories.run(db)  # another deployment's


async def test_the_number_of_a_deleted_last_event_is_not_given_again(db: Database) -> None:
    # A subscriber's cursor stands at it, and would skip the new one.
    gone = await factories.deployment(db)
    async with db.write() as session:
        last = await session.scalar(select(StatusEvent.sequence).where(StatusEvent.deployment_id == gone.id))
        await session.delete(await session.get_one(Deployment, gone.id))
    new = await factories.deployment(db)
    async with db.read() as session:
        sequence = await session.scalar(select(StatusEvent.sequence).where(StatusEvent.deployment_id == new.id))
    assert last is not None
    assert sequence is not None
    assert sequence > last
