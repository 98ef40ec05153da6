"""Deployments, on both engines; how they are watched is in test_deployment_changes."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import delete, select, text

from db.broadcast import Broadcast, Everything
from db.database import Database
from db.encryption import Secret
from db.models import Deployment, DeploymentStatus, LogEntry, Run, RunAction, RunStatus, StatusEvent, Variable
from resolvers import deployments, runs
from resolvers.deployments import NEWEST_FIRST, Deleted, Filter, NewVariable, Order, OrderField
from resolvers.errors import HostNotFound, InvalidInput, NameTaken, NotFound, PackageNotFound, RunInProgress
from resolvers.paging import Arguments, OrderDirection
from tests import factories
from tests.support.attacks import TEMPLATES, UNKNOWN
from tests.support.locks import until_one_waits
from tests.support.recording_engine import RecordingEngine

EVERYTHING = Arguments(first=100)


async def _create(db: Database, broadcast: Broadcast, **values: object) -> Deployment:
    parts = {"host_id": str((await factories.host(db)).id), "package_id": str((await factories.package(db)).id)}
    return await deployments.create(db, broadcast, **(parts | values))  # type: ignore[arg-type] # a test's own values


async def test_a_deployment_misses_what_its_package_requires_and_it_does_not_have(db: Database) -> None:
    package = await factories.package(db, compose_file="x: '$A $B $C ${D:-d} ${E:-$F} $A'\nservices: {web: }")
    empty = await factories.deployment(db, of=package)
    full = await factories.deployment(db, of=package, variables={"A": "", "E": "e"}, secrets={"C": "c"})
    other = await factories.deployment(db)
    assert await deployments.missing_variables_of(db, [empty.id, full.id, other.id, uuid4()]) == {
        empty.id: ["A", "B", "C", "F"],
        full.id: ["B"],
        other.id: [],
    }


async def _listed(db: Database, narrowed: Filter) -> list[UUID]:
    page = await deployments.list_page(db, EVERYTHING, narrowed, NEWEST_FIRST)
    assert await deployments.count(db, narrowed) == len(page.rows)
    return [deployment.id for _, deployment in page.rows]


ORDERS = [Order(field, direction) for field in OrderField for direction in OrderDirection]


async def _ordered(db: Database) -> dict[Order, list[str]]:
    """The project names of new deployments in each order: two were updated at the same moment."""
    host, package = await factories.host(db), await factories.package(db)
    hour = timedelta(hours=1)
    for name, updated in (("d", 2), ("a", 1), ("c", 3), ("b", 1)):
        moment = factories.LONG_AGO + updated * hour
        await factories.deployment(db, on=host, of=package, project_name=name, updated_at=moment)
    ascending = {OrderField.CREATED_AT: "dacb", OrderField.UPDATED_AT: "abdc", OrderField.PROJECT_NAME: "abcd"}
    return {
        Order(field, direction): list(names if direction is OrderDirection.ASC else names[::-1])
        for field, names in ascending.items()
        for direction in OrderDirection
    }


async def test_deployments_are_paged_both_ways_in_each_order(db: Database) -> None:
    expected = await _ordered(db)
    assert list(expected) == ORDERS
    for order, names in expected.items():
        forward, backward, start, end = [], [], None, None
        for _ in names:
            page = await deployments.list_page(db, Arguments(first=1, after=end), Filter(), order)
            [(end, deployment)] = page.rows
            forward.append(deployment.project_name)
            page = await deployments.list_page(db, Arguments(last=1, before=start), Filter(), order)
            [(start, deployment)] = page.rows
            backward.append(deployment.project_name)
        assert (forward, backward) == (names, names[::-1]), order


async def test_deployments_below_hosts_and_packages_have_each_order(db: Database) -> None:
    expected = await _ordered(db)
    [(_, one), *_] = (await deployments.list_page(db, EVERYTHING, Filter(), NEWEST_FIRST)).rows
    other = await factories.deployment(db)
    for listings, parents in (
        (deployments.ON_HOST, [other.host_id, one.host_id]),
        (deployments.OF_PACKAGE, [other.package_id, one.package_id]),
    ):
        for order, names in expected.items():
            listing = listings[order]
            pages = await listing.pages(db, listing.range(Arguments(first=3)), parents)
            assert [deployment.project_name for _, deployment in pages[parents[1]].rows] == names[:3], order
            assert [deployment.id for _, deployment in pages[parents[0]].rows] == [other.id]


@pytest.mark.parametrize("order", ORDERS, ids=str)
async def test_a_page_of_deployments_is_read_along_an_index_without_sorting(db: Database, order: Order) -> None:
    listing = deployments.ALL[order]
    statement = listing._select(listing.range(Arguments()))
    async with db.read() as session:
        connection = await session.connection()
        compiled = statement.compile(dialect=connection.dialect, compile_kwargs={"literal_binds": True})
        if not db.is_sqlite:  # which prefers to read all of a table that is as small as a test's
            await session.execute(text("SET LOCAL enable_seqscan = off"))
        explain = "EXPLAIN QUERY PLAN" if db.is_sqlite else "EXPLAIN"
        plan = str((await connection.exec_driver_sql(f"{explain} {compiled}")).all())
    assert not re.search("Sort|TEMP B-TREE", plan), plan


async def test_a_deployment_begins_as_pending(db: Database, broadcast: Broadcast) -> None:
    created = await _create(db, broadcast, project_name="my-project")
    deployment = await deployments.get(db, str(created.id))
    assert (deployment.status, deployment.project_name) == (DeploymentStatus.PENDING, "my-project")
    assert deployment.created_at.utcoffset() is not None
    async with db.read() as session:
        [event] = await session.scalars(select(StatusEvent))
    assert (event.deployment_id, event.status, event.run_id) == (deployment.id, DeploymentStatus.PENDING, None)


@pytest.mark.parametrize(
    ("package", "begins"),
    [
        ("Web Shop 2", "web-shop-2-"),
        ("日本", "project-"),
        ("--", "project-"),
        ("x" * 100, "x" * 40 + "-"),
        ("_a_", "a-"),
    ],
)
async def test_a_project_name_is_made_from_the_packages(
    sqlite_db: Database, broadcast: Broadcast, package: str, begins: str
) -> None:
    host, what = await factories.host(sqlite_db), await factories.package(sqlite_db, name=package)
    made = [
        await deployments.create(sqlite_db, broadcast, host_id=str(host.id), package_id=str(what.id)) for _ in range(5)
    ]
    names = {deployment.project_name for deployment in made}
    assert len(names) == 5
    assert all(name.startswith(begins) and len(name) == len(begins) + 8 for name in names)


async def test_variables_are_kept_and_secrets_encrypted(db: Database, broadcast: Broadcast) -> None:
    variables = [NewVariable("B", Secret("s3cret"), is_secret=True)]
    variables += [NewVariable(f"A{number}", Secret(text), is_secret=False) for number, text in enumerate(TEMPLATES)]
    deployment = await _create(db, broadcast, variables=variables)
    found = (await deployments.variables_of(db, [deployment.id]))[deployment.id]
    assert [variable.name for variable in found] == sorted(variable.name for variable in variables)
    assert {variable.value for variable in found if not variable.secret} == set(TEMPLATES)
    [secret] = [variable for variable in found if variable.secret]
    assert (secret.name, secret.value) == ("B", None)
    async with db.read() as session:
        ciphertext = await session.scalar(select(Variable.ciphertext).where(Variable.name == "B"))
    assert ciphertext is not None
    assert db.keyring.decrypt(ciphertext).reveal() == "s3cret"
    plain = sum(len(text) for text in TEMPLATES)
    assert await deployments.variables_size(db, [deployment.id]) == plain


def test_a_variables_value_is_not_printed() -> None:
    assert "s3cret" not in repr(NewVariable("A", Secret("s3cret"), is_secret=False))


async def test_unknown_parts_are_named(db: Database, broadcast: Broadcast) -> None:
    for unknown in UNKNOWN:
        with pytest.raises(HostNotFound):
            await _create(db, broadcast, host_id=unknown)
        with pytest.raises(PackageNotFound):
            await _create(db, broadcast, package_id=unknown)


async def test_all_problems_of_a_deployment_are_told_at_once(db: Database, broadcast: Broadcast) -> None:
    variables = [NewVariable("1", Secret(""), is_secret=False), NewVariable("A", Secret("\0"), is_secret=True)]
    with pytest.raises(InvalidInput) as refused:
        await _create(db, broadcast, host_id="unknown", project_name="My Project", variables=variables)
    assert [(problem.path, problem.code) for problem in refused.value.problems] == [
        (("project_name",), "PROJECT_NAME"),
        (("variables", 0, "name"), "VARIABLE"),
        (("variables", 1, "value"), "CHARACTER"),
    ]


async def test_a_project_name_is_taken_once_on_a_host(db: Database, broadcast: Broadcast) -> None:
    host = await factories.host(db)
    await factories.deployment(db, on=host, project_name="web")
    words = f"Project 'web' exists already on host '{host.name}'; choose another projectName."
    with pytest.raises(NameTaken, match=rf"\A{re.escape(words)}\Z"):
        await _create(db, broadcast, host_id=str(host.id), project_name="web")
    await _create(db, broadcast, project_name="web")


async def test_what_could_not_be_created_leaves_nothing(db: Database, broadcast: Broadcast) -> None:
    taken = await factories.deployment(db)
    with pytest.raises(NameTaken):
        await _create(
            db,
            broadcast,
            host_id=str(taken.host_id),
            project_name=taken.project_name,
            variables=[NewVariable("A", Secret("1"), is_secret=False)],
        )
    async with db.read() as session:
        assert (await session.scalars(select(Variable))).all() == []
        assert len((await session.scalars(select(StatusEvent))).all()) == 1


@pytest.mark.parametrize("act", ["get", "remove"])
async def test_a_deployment_that_is_not_there_is_not_found(db: Database, broadcast: Broadcast, act: str) -> None:
    for deployment_id in UNKNOWN:
        with pytest.raises(NotFound):
            await (
                deployments.get(db, deployment_id) if act == "get" else deployments.remove(db, broadcast, deployment_id)
            )


async def test_an_empty_list_is_empty(db: Database) -> None:
    assert await _listed(db, Filter()) == []


async def test_deployments_are_listed_newest_first(db: Database) -> None:
    made = [(await factories.deployment(db)).id for _ in range(3)]
    assert await _listed(db, Filter()) == made[::-1]


async def test_a_filters_conditions_hold_together(db: Database) -> None:
    host, package = await factories.host(db), await factories.package(db)
    plain = await factories.deployment(db)
    on_host = await factories.deployment(db, on=host)
    of_package = await factories.deployment(db, of=package)
    both = await factories.deployment(db, on=host, of=package)
    await factories.run(db, both, RunStatus.FAILED)
    await factories.run(db, on_host)
    pending, running, failed = DeploymentStatus.PENDING, DeploymentStatus.RUNNING, DeploymentStatus.FAILED
    for narrowed, expected in (
        (Filter(host_id=str(host.id)), [both, on_host]),
        (Filter(package_id=str(package.id)), [both, of_package]),
        (Filter(host_id=str(host.id), package_id=str(package.id)), [both]),
        (Filter(status_in=frozenset({pending})), [of_package, plain]),
        (Filter(status_in=frozenset({running, failed})), [both, on_host]),
        (Filter(status_in=frozenset({running}), host_id=str(host.id)), [on_host]),
        (Filter(status_in=frozenset({pending}), host_id=str(host.id)), []),
        (Filter(status_in=frozenset()), []),
    ):
        assert await _listed(db, narrowed) == [deployment.id for deployment in expected], narrowed


async def test_a_filter_by_what_is_not_there_finds_nothing(db: Database) -> None:
    await factories.deployment(db)
    for unknown in UNKNOWN:
        assert await _listed(db, Filter(host_id=unknown)) == []
        assert await _listed(db, Filter(package_id=unknown)) == []


async def test_many_deployments_are_read_by_their_ids(db: Database) -> None:
    one, two = await factories.deployment(db), await factories.deployment(db, variables={"B": "2", "A": "1"})
    keys = [one.id, two.id, uuid4()]
    assert set(await deployments.get_many(db, keys)) == {one.id, two.id}
    variables = await deployments.variables_of(db, keys)
    assert {key: [variable.name for variable in found] for key, found in variables.items()} == {two.id: ["A", "B"]}


@pytest.mark.parametrize("last", [None, RunStatus.SUCCESS, RunStatus.FAILED, RunStatus.CANCELED])
async def test_a_deployment_is_deleted_with_runs_and_logs(
    db: Database, broadcast: Broadcast, last: RunStatus | None
) -> None:
    deployment = await factories.deployment(db, secrets={"A": "1"})
    if last is not None:
        await factories.log(db, await factories.run(db, deployment, last), 3)
    with broadcast.listen(Everything.DEPLOYMENTS) as all_of_them, broadcast.listen(deployment.id) as it:
        deleted = await deployments.remove(db, broadcast, str(deployment.id))
        assert deleted == Deleted(deployment.id, left_running=last is RunStatus.SUCCESS)
        await asyncio.gather(all_of_them.wait(5), it.wait(5))
    async with db.read() as session:
        for entity in (Deployment, Run, LogEntry, StatusEvent, Variable):
            assert (await session.scalars(select(entity))).all() == []


@pytest.mark.parametrize("active", [RunStatus.QUEUED, RunStatus.RUNNING])
async def test_a_deployment_that_is_running_is_not_deleted(
    db: Database, broadcast: Broadcast, active: RunStatus
) -> None:
    run = await factories.run(db, to=active)
    with pytest.raises(RunInProgress):
        await deployments.remove(db, broadcast, str(run.deployment_id))
    assert (await runs.get(db, str(run.id))).status is active


async def _outcomes(*acts: Callable[[], Awaitable[object]]) -> list[str]:
    results = await asyncio.gather(*(act() for act in acts), return_exceptions=True)
    return [type(result).__name__ for result in results]


async def test_a_deployment_is_deleted_or_started_but_not_both(
    db: Database, broadcast: Broadcast, engine: RecordingEngine
) -> None:
    for _ in range(10):
        key = str((await factories.deployment(db)).id)
        outcomes = await _outcomes(
            lambda key=key: deployments.remove(db, broadcast, key),  # type: ignore[misc] # a lambda's default
            lambda key=key: runs.start(db, engine, broadcast, [key], RunAction.UP),  # type: ignore[misc] # likewise
        )
        assert outcomes in (["Deleted", "NotFound"], ["RunInProgress", "list"])


async def test_one_of_two_deletes_finds_the_deployment(db: Database, broadcast: Broadcast) -> None:
    key = str((await factories.deployment(db)).id)
    outcomes = await _outcomes(*[lambda: deployments.remove(db, broadcast, key)] * 2)
    assert sorted(outcomes) == ["Deleted", "NotFound"]


async def test_a_delete_that_waited_for_another_one_finds_nothing(
    postgresql_db: Database, broadcast: Broadcast
) -> None:
    db = postgresql_db
    deployment = await factories.deployment(db)
    async with db.write() as session:
        await session.execute(delete(Deployment).where(Deployment.id == deployment.id))
        second = asyncio.create_task(deployments.remove(db, broadcast, str(deployment.id)))
        await until_one_waits(db)
    with pytest.raises(NotFound):
        await second
