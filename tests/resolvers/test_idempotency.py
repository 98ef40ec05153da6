"""A key makes one thing, however often and from however many sides it comes, on both engines."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import func, select, update

from db.broadcast import Broadcast
from db.database import Database
from db.encryption import Secret
from db.models import Base, Deployment, Host, IdempotencyKey, Package, Run, RunAction, RunStatus
from resolvers import deployments, hosts, packages, runs
from resolvers.deployments import NewVariable
from resolvers.errors import InvalidInput, NameTaken, NotFound, RunInProgress
from resolvers.files import NewFile
from resolvers.idempotency import LIFETIME, Key
from tests import factories
from tests.support.attacks import TEMPLATES
from tests.support.recording_engine import RecordingEngine

KEY = Key("ci", "mutation", "8e03978e-40d5-43dd-bc93-6894a57f9324")
DAY = timedelta(hours=24)

Make = Callable[..., Awaitable[UUID]]  # carries out a request with a key, and perhaps with other input; gives an id


async def _number(db: Database, entity: type[Base]) -> int:
    async with db.read() as session:
        return await session.scalar(select(func.count()).select_from(entity)) or 0


async def _age(db: Database, by: timedelta) -> None:
    """Make all keys older."""
    async with db.write() as session:
        for row in await session.scalars(select(IdempotencyKey)):
            row.created_at -= by


async def _keys(db: Database) -> set[str]:
    async with db.read() as session:
        return set(await session.scalars(select(IdempotencyKey.key)))


@pytest.fixture(params=[Host, Package, Deployment, Run])
async def entity(request: pytest.FixtureRequest) -> type[Base]:
    made: type[Base] = request.param
    return made


@pytest.fixture
async def make(db: Database, broadcast: Broadcast, engine: RecordingEngine, entity: type[Base]) -> Make:
    """A request that makes an `entity`."""
    of = {"host_id": str((await factories.host(db)).id), "package_id": str((await factories.package(db)).id)}
    first, second = [str((await factories.deployment(db)).id) for _ in range(2)]

    async def host(key: Key | None, *, other: bool = False) -> UUID:
        return (await hosts.create(db, name="web", address="b.example" if other else "a.example", key=key)).id

    async def package(key: Key | None, *, other: bool = False) -> UUID:
        files = [NewFile("file", content="b" if other else "a")]
        given: Any = {"name": "web", "version": "1", "compose_file": factories.COMPOSE_FILE, "files": files}
        return (await packages.create(db, **given, key=key)).id

    async def deployment(key: Key | None, *, other: bool = False) -> UUID:
        variables = [NewVariable("PASSWORD", Secret("hunter3" if other else "hunter2"), is_secret=True)]
        given: Any = of | {"project_name": "web", "variables": variables}
        return (await deployments.create(db, broadcast, **given, key=key)).id

    async def run(key: Key | None, *, other: bool = False) -> UUID:
        wanted = [second if other else first]
        [(_, started)] = await runs.start(db, engine, broadcast, wanted, RunAction.UP, key=key)
        return started.id

    chosen: dict[type[Base], Make] = {Host: host, Package: package, Deployment: deployment, Run: run}
    return chosen[entity]


async def test_the_second_request_with_a_key_gets_what_the_first_has_made(
    db: Database, make: Make, entity: type[Base]
) -> None:
    made = await make(KEY)
    before = await _number(db, entity)
    assert await make(KEY) == made
    assert await _number(db, entity) == before


async def test_without_a_key_nothing_is_the_same_request(make: Make) -> None:
    await make(KEY)
    with pytest.raises((NameTaken, RunInProgress)):
        await make(None)


async def test_of_twenty_requests_at_once_one_makes_something_and_all_get_it(
    db: Database, make: Make, entity: type[Base]
) -> None:
    before = await _number(db, entity)
    made = await asyncio.gather(*(make(KEY) for _ in range(20)))
    assert len(set(made)) == 1
    assert await _number(db, entity) == before + 1
    assert await _number(db, IdempotencyKey) == 1


async def test_a_key_with_other_input_is_refused(db: Database, make: Make, entity: type[Base]) -> None:
    await make(KEY)
    before = await _number(db, entity)
    with pytest.raises(InvalidInput, match="was given with other input") as refused:
        await make(KEY, other=True)
    [problem] = refused.value.problems
    assert (problem.path, problem.code) == (("idempotency_key",), "IDEMPOTENCY_KEY")
    assert await _number(db, entity) == before


async def test_of_two_inputs_at_once_one_is_refused(db: Database, make: Make, entity: type[Base]) -> None:
    before = await _number(db, entity)
    requests = [make(KEY, other=bool(number % 2)) for number in range(10)]
    results = await asyncio.gather(*requests, return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == [*["InvalidInput"] * 5, *["UUID"] * 5]
    assert await _number(db, entity) == before + 1


@pytest.mark.parametrize("changed", [{"principal": "other"}, {"mutation": "other"}, {"text": "other"}])
async def test_a_key_is_the_tokens_own_and_the_mutations_own(make: Make, changed: dict[str, str]) -> None:
    await make(KEY)
    with pytest.raises((NameTaken, RunInProgress)):  # it is another request, which is carried out
        await make(replace(KEY, **changed))


async def test_a_key_is_free_after_a_day(db: Database, make: Make) -> None:
    made = await make(KEY)
    await _age(db, DAY - timedelta(minutes=1))
    assert await make(KEY) == made
    await _age(db, timedelta(minutes=1))
    with pytest.raises((NameTaken, RunInProgress)):
        await make(KEY)


async def test_a_key_that_is_free_again_is_taken_once(
    db: Database, broadcast: Broadcast, engine: RecordingEngine
) -> None:
    run = await factories.run(db, to=RunStatus.FAILED)
    wanted = [str(run.deployment_id)]
    async with db.write() as session:
        old = IdempotencyKey(principal=KEY.principal, mutation=KEY.mutation, key=KEY.text, fingerprint="test:0")
        old.object_ids = [str(run.id)]
        session.add(old)
    await _age(db, DAY)
    starts = (runs.start(db, engine, broadcast, wanted, RunAction.UP, key=KEY) for _ in range(10))
    started = {again.id for [(_, again)] in await asyncio.gather(*starts)}
    assert len(started) == 1
    assert run.id not in started


async def test_old_keys_are_removed_by_the_next_one(db: Database) -> None:
    for number in range(3):
        await hosts.create(db, name=f"web {number}", address="a.example", key=replace(KEY, text=f"old {number}"))
    await _age(db, LIFETIME)
    await hosts.create(db, name="db", address="a.example", key=KEY)
    assert await _keys(db) == {KEY.text}


async def test_requests_that_remove_old_keys_do_not_wait_for_each_others(db: Database) -> None:
    keys = [replace(KEY, text=f"{number}") for number in range(12)]
    for round_ in range(2):
        created = (hosts.create(db, name=f"{key.text} {round_}", address="a.example", key=key) for key in keys)
        await asyncio.wait_for(asyncio.gather(*created), 20)
        await _age(db, LIFETIME)
        keys.reverse()
    assert await _number(db, Host) == 24


async def test_a_request_that_fails_leaves_its_key_free(
    db: Database, broadcast: Broadcast, engine: RecordingEngine
) -> None:
    wanted = [str((await factories.deployment(db)).id)]
    [(_, other)] = await runs.start(db, engine, broadcast, wanted, RunAction.UP)
    with pytest.raises(RunInProgress):
        await runs.start(db, engine, broadcast, wanted, RunAction.UP, key=KEY)
    assert await _keys(db) == set()
    await runs.cancel(db, engine, broadcast, str(other.id))
    [(_, run)] = await runs.start(db, engine, broadcast, wanted, RunAction.UP, key=KEY)
    assert run.number == 2


async def test_what_was_deleted_is_not_made_again(
    db: Database, make: Make, entity: type[Base], broadcast: Broadcast
) -> None:
    made = await make(KEY)
    async with db.write() as session:
        await session.delete(await session.get_one(entity, made))
    before = await _number(db, entity)
    with pytest.raises(NotFound, match=str(made)):
        await make(KEY)
    assert await _number(db, entity) == before


async def test_many_runs_are_given_again_in_their_order_and_as_they_are_now(
    db: Database, broadcast: Broadcast, engine: RecordingEngine
) -> None:
    wanted = [str((await factories.deployment(db)).id) for _ in range(5)][::-1]
    started = await runs.start(db, engine, broadcast, wanted, RunAction.UP, key=KEY)
    await runs.cancel(db, engine, broadcast, str(started[1][1].id))
    again = await runs.start(db, engine, broadcast, wanted, RunAction.UP, key=KEY)
    assert [run.id for _, run in again] == [run.id for _, run in started]
    assert [str(deployment.id) for deployment, _ in again] == wanted
    assert [run.status for _, run in again] == [
        RunStatus.CANCELED if number == 1 else RunStatus.QUEUED for number in range(5)
    ]
    assert len(engine.enqueued) == 5


async def test_one_deleted_run_among_many_is_not_found(
    db: Database, broadcast: Broadcast, engine: RecordingEngine
) -> None:
    wanted = [str((await factories.deployment(db)).id) for _ in range(2)]
    [_, (deployment, run)] = await runs.start(db, engine, broadcast, wanted, RunAction.UP, key=KEY)
    async with db.write() as session:
        await session.delete(await session.get_one(Deployment, deployment.id))
    with pytest.raises(NotFound, match=str(run.id)):
        await runs.start(db, engine, broadcast, wanted, RunAction.UP, key=KEY)


async def test_no_secret_and_no_plain_hash_of_one_is_kept(db: Database, broadcast: Broadcast) -> None:
    of: Any = {"host_id": str((await factories.host(db)).id), "package_id": str((await factories.package(db)).id)}
    variables = [NewVariable("PASSWORD", Secret("hunter2"), is_secret=True)]
    await deployments.create(db, broadcast, **of, variables=variables, key=KEY)
    async with db.read() as session:
        row = (await session.scalars(select(IdempotencyKey))).one()
    assert "hunter2" not in str(vars(row))
    # Whoever has the database and not the keyring cannot try passwords.
    assert row.fingerprint.startswith("test:")


async def test_a_key_whose_input_cannot_be_compared_is_refused(db: Database, make: Make) -> None:
    await make(KEY)
    async with db.write() as session:
        await session.execute(update(IdempotencyKey).values(fingerprint="gone:00"))
    with pytest.raises(InvalidInput):
        await make(KEY)


@pytest.mark.parametrize("text", ["", "x" * 256, "a\nb", "a\0b", "\ud800", "\u202e"])
async def test_a_key_is_1_to_255_printable_characters(sqlite_db: Database, text: str) -> None:
    with pytest.raises(InvalidInput, match="idempotency_key must have from 1 to 255 printable characters"):
        await hosts.create(sqlite_db, name="web", address="a.example", key=replace(KEY, text=text))
    assert await _number(sqlite_db, Host) == 0


@pytest.mark.parametrize("text", ["x", "ä" * 255, " ", "' OR 1=1 --", *TEMPLATES])
async def test_any_other_key_is_kept_as_it_is(db: Database, text: str) -> None:
    made = [await hosts.create(db, name="web", address="a.example", key=replace(KEY, text=text)) for _ in range(2)]
    assert made[0].id == made[1].id
    assert await _keys(db) == {text}
