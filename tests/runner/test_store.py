"""What the runner reads: which runs are next, and where the others stand."""

from random import Random
from uuid import UUID

import pytest
from sqlalchemy import select

from db.database import Database
from db.models import Host, Installation, PackageFile, Run, RunStatus
from resolvers import private_keys
from runner import store
from runner.spec.run import ProjectFile
from runner.store import Capacity, Place, RunBlocker
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


async def places(db: Database, run_ids: list[UUID], capacity: Capacity) -> dict[UUID, Place]:
    async with db.read() as session:
        return await store.places(session, run_ids, capacity)


async def test_a_place_is_the_order_of_acceptance_where_every_host_has_room(db: Database) -> None:
    one, other = await factories.host(db), await factories.host(db)
    runs = await waiting(db, one, other, one, other)
    ids = [run.id for run in runs]
    found = await places(db, ids[::-1], Capacity(runs=2, per_host=2))
    assert [found[key].position for key in ids] == [1, 2, 3, 4]
    assert [found[key].blocked_by for key in ids] == [None, None, RunBlocker.SERVER_LIMIT, RunBlocker.SERVER_LIMIT]
    assert set(await places(db, ids[2:3], Capacity(2, 2))) == {ids[2]}


async def test_runs_of_a_full_host_stand_behind_the_others(db: Database) -> None:
    full, free = await factories.host(db), await factories.host(db)
    for _ in range(2):
        await factories.run(db, await factories.deployment(db, on=full), RunStatus.RUNNING)
    runs = await waiting(db, full, free, full, free, free)
    found = await places(db, [run.id for run in runs], Capacity(runs=4, per_host=2))
    assert [found[run.id] for run in runs] == [
        Place(3, RunBlocker.HOST_LIMIT),
        Place(1, None),
        Place(4, RunBlocker.HOST_LIMIT),
        Place(2, None),
        Place(5, RunBlocker.HOST_LIMIT),  # two before it take the room of its host
    ]
    [only] = (await places(db, [runs[3].id], Capacity(runs=3, per_host=2))).values()
    assert only == Place(2, RunBlocker.SERVER_LIMIT)


@pytest.mark.parametrize("status", [status for status in RunStatus if status is not RunStatus.QUEUED])
async def test_what_is_not_queued_has_no_place(db: Database, status: RunStatus) -> None:
    run = await factories.run(db, to=status)
    assert await places(db, [run.id], Capacity(1, 1)) == {}


async def test_a_higher_priority_is_next_and_age_decides_among_equals(db: Database) -> None:
    host = await factories.host(db)
    runs = [
        await factories.run(db, await factories.deployment(db, on=host), priority=priority)
        for priority in (0, -100, 100, 0, 100)
    ]
    in_order = [runs[number].id for number in (2, 4, 0, 3, 1)]
    assert await queued(db, {}, 5, 5) == in_order
    assert await queued(db, {}, 5, 2) == in_order[:2]  # those of the host are chosen by priority too
    found = await places(db, in_order, Capacity(5, 5))
    assert [found[key].position for key in in_order] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("seed", range(5))
async def test_places_are_the_order_in_which_the_engine_takes_runs(db: Database, seed: int) -> None:
    random = Random(seed)
    hosts = [await factories.host(db) for _ in range(3)]
    active: dict[UUID, UUID] = {}
    for _ in range(12):
        on = random.choice(hosts)
        run = await factories.run(
            db,
            await factories.deployment(db, on=on),
            random.choice([RunStatus.QUEUED, RunStatus.QUEUED, RunStatus.RUNNING]),
            priority=random.randint(-2, 2),
        )
        if run.status is RunStatus.RUNNING:
            active[run.id] = on.id
    async with db.read() as session:
        waits = list(await session.scalars(select(Run.id).where(Run.status == RunStatus.QUEUED)))
    capacity = Capacity(runs=len(active) + 2, per_host=3)
    found = await places(db, waits, capacity)
    in_order = sorted(waits, key=lambda key: found[key].position)
    assert [found[key].position for key in in_order] == [*range(1, len(waits) + 1)]
    assert [key for key in in_order if found[key].blocked_by is None] == await queued(db, active, 2, 3)
    with_room = [key for key in in_order if found[key].blocked_by in {None, RunBlocker.SERVER_LIMIT}]
    assert with_room == await queued(db, active, 100, 3)


async def test_every_run_names_the_one_installation_of_the_database(db: Database) -> None:
    keys = [(await factories.run(db)).id for _ in range(2)]
    async with db.read() as session:
        [installation] = await session.scalars(select(Installation.id))
        found = [await store.project(session, key, db.keyring) for key in keys]
    assert [what.installation for what, _ in found] == [installation] * 2


async def test_a_stored_key_goes_with_the_run_and_is_hidden_in_its_log(db: Database) -> None:
    private = private_keys.generate()
    host = await factories.host(db, ssh_key_id=(await factories.ssh_key(db, private)).id)
    run = await factories.run(db, await factories.deployment(db, on=host, secrets={"A": "hunter2"}))
    async with db.read() as session:
        what, _ = await store.project(session, run.id, db.keyring)
    assert what.target.ssh_key is not None
    assert what.target.ssh_key.reveal() == private.text.reveal()
    assert {secret.reveal() for secret in what.secrets} == {"hunter2", private.text.reveal()}
    assert private.text.reveal() not in repr(what)


async def test_files_of_the_package_go_with_the_run_as_they_are(db: Database) -> None:
    package = await factories.package(db, files={"a": "ü", "run": b"\0\xff"})
    async with db.write() as session:
        file = await session.get_one(PackageFile, (package.id, "run"))
        file.mode, file.only_if_missing = 0o755, True
    run = await factories.run(db, await factories.deployment(db, of=package), RunStatus.RUNNING)
    async with db.read() as session:
        project, _ = await store.project(session, run.id, db.keyring)
    assert project.files == {
        "a": ProjectFile("ü".encode()),
        "run": ProjectFile(b"\0\xff", mode=0o755, only_if_missing=True),
    }
