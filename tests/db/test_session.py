"""What a session sees and what it has made, in whatever statement asks."""

from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from db.database import Database
from db.models import Base, Deployment, Host, LogEntry, Package, Run, SshKey, StatusEvent, Variable
from db.session import LABELS, MADE, UNLIMITED
from tests import factories

ON_HOSTS = (Host, Deployment, Variable, Run, StatusEvent, LogEntry)


async def _two_hosts(db: Database) -> tuple[Host, Host]:
    """One with the label "web" and one without, each with one row of everything that a host can have."""
    hosts = await factories.host(db, ["web", "eu"]), await factories.host(db, ["db"])
    package = await factories.package(db)
    for host in hosts:
        deployment = await factories.deployment(db, on=host, of=package, variables={"A": "1"})
        await factories.log(db, await factories.run(db, deployment), 1)
    return hosts


async def _count(session: AsyncSession, entity: type[Base]) -> int:
    return await session.scalar(select(func.count()).select_from(entity)) or 0


async def test_a_limited_session_sees_what_is_on_hosts_with_one_of_the_labels(db: Database) -> None:
    await _two_hosts(db)
    async with db.read() as session:
        both = {entity: await _count(session, entity) for entity in ON_HOSTS}
        session.info[LABELS] = frozenset({"web", "other"})
        one = {entity: await _count(session, entity) for entity in ON_HOSTS}
    assert {entity: 2 * count for entity, count in one.items()} == both


async def test_without_a_label_it_sees_packages_and_nothing_on_hosts(db: Database) -> None:
    await _two_hosts(db)
    async with db.read() as session:
        session.info[LABELS] = frozenset()
        assert [await _count(session, entity) for entity in ON_HOSTS] == [0] * len(ON_HOSTS)
        assert await _count(session, Package) == 1


async def test_the_limit_is_in_joins_and_in_subqueries(db: Database) -> None:
    mine, other = await _two_hosts(db)
    joined = select(Deployment.host_id).join(Run, Run.deployment_id == Deployment.id)
    nested = select(Host.id).where(Host.id.in_(select(Deployment.host_id)))
    async with db.read() as session:
        session.info[LABELS] = frozenset({"eu"})
        for statement in (joined, nested):
            assert list(await session.scalars(statement)) == [mine.id]
        assert await session.get(Host, other.id) is None


async def test_a_statement_that_has_to_see_everything_does(db: Database) -> None:
    await _two_hosts(db)
    async with db.read() as session:
        session.info[LABELS] = frozenset()
        assert len((await session.scalars(select(Host).execution_options(**UNLIMITED))).all()) == 2


async def test_what_a_session_has_added_is_known_in_its_order(db: Database) -> None:
    first = await factories.host(db)
    key = SshKey(name="key", ciphertext="test:", public_key="p", fingerprint="f")
    async with db.write() as session:
        session.add(package := Package(name="p", version="1", compose_file="", requirements=[]))
        await session.flush()
        session.add(key)
        first = await session.merge(first)
        first.name = "changed, and not made"
        await session.flush()
        made: list[UUID] = session.info[MADE]
        assert made == [package.id, key.id]
