"""What the runner reads: which runs are next."""

from uuid import UUID

from db.engine import Database
from db.models import Host, Run, RunStatus
from runner import store
from tests import factories


async def waiting(db: Database, *hosts: Host) -> list[Run]:
    """A queued run on each host, in this order."""
    return [await factories.run(db, await factories.deployment(db, on=host)) for host in hosts]


async def queued(db: Database, active: dict[UUID, UUID], limit: int, per_host: int) -> list[UUID]:
    async with db.read() as session:
        return list(await store.queued(session, active, limit, per_host))


async def test_runs_are_next_in_the_order_of_their_acceptance(db: Database) -> None:
    one, other = await factories.host(db), await factories.host(db)
    runs = await waiting(db, one, other, one, other)
    assert await queued(db, {}, 3, 4) == [run.id for run in runs[:3]]


async def test_a_host_with_enough_runs_is_passed_over(db: Database) -> None:
    hangs, works = await factories.host(db), await factories.host(db)
    runs = await waiting(db, *[hangs] * 6, works, hangs, works)
    assert await queued(db, {}, 8, 2) == [runs[0].id, runs[1].id, runs[6].id, runs[8].id]
    active = {runs[0].id: hangs.id, runs[1].id: hangs.id}
    assert await queued(db, active, 8, 2) == [runs[6].id, runs[8].id]
    assert await queued(db, active, 1, 2) == [runs[6].id]
    assert await queued(db, {runs[0].id: hangs.id}, 2, 2) == [runs[1].id, runs[6].id]


async def test_what_is_played_or_over_is_not_next(db: Database) -> None:
    host = await factories.host(db)
    playing = await factories.run(db, await factories.deployment(db, on=host), RunStatus.RUNNING)
    await factories.run(db, await factories.deployment(db, on=host), RunStatus.SUCCESS)
    [waits] = await waiting(db, host)
    assert await queued(db, {playing.id: host.id}, 5, 2) == [waits.id]
    async with db.read() as session:
        assert await store.running(session) == {playing.id: host.id}
