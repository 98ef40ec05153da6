"""Pages by keyset: every way through a list, and every cursor that is none."""

import base64
import json
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import pytest

from db.database import Database
from db.models import Host, LogEntry, RunStatus
from resolvers.deployment_changes import CHANGES
from resolvers.deployments import ALL, DEPLOYMENTS, NEWEST_FIRST, OF_PACKAGE, ON_HOST, Order, OrderField
from resolvers.errors import InvalidInput
from resolvers.hosts import HOSTS
from resolvers.paging import MAX_PARENTS, Arguments, Listing, Page
from resolvers.runs import DEPLOYMENT_LOG, LOG, OF_DEPLOYMENT, RUNS
from tests import factories
from tests.support.attacks import LONG, PATHS, TEMPLATES, UNPRINTABLE, UNSTORABLE, short
from tests.support.statements import selects

SOME_ID = UUID("01900000-0000-7000-8000-000000000000")


async def _page(db: Database, **arguments: Any) -> Page[Host]:
    return await HOSTS.page(db, HOSTS.range(Arguments(**arguments)))


def _names(page: Page[Host]) -> list[str]:
    return [host.name for _, host in page.rows]


async def _hosts(db: Database, count: int = 7) -> list[str]:
    """The names of new hosts in the list's order: the newest first."""
    names = [f"{number}" for number in range(count)]
    for name in names:
        await factories.host(db, name=name)
    return names[::-1]


def _cursor(*parts: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode().rstrip("=")


async def test_an_empty_list_has_an_empty_page(db: Database) -> None:
    arguments: dict[str, Any]
    for arguments in ({}, {"last": 5}, {"first": 0}):
        assert await _page(db, **arguments) == Page([], has_next=False, has_previous=False)
    assert await HOSTS.count(db) == 0


async def test_a_list_is_read_forward_from_its_start(db: Database) -> None:
    names = await _hosts(db)
    first = await _page(db, first=3)
    assert (_names(first), first.has_previous, first.has_next) == (names[:3], False, True)
    second = await _page(db, first=3, after=first.rows[-1][0])
    assert (_names(second), second.has_previous, second.has_next) == (names[3:6], True, True)
    third = await _page(db, first=3, after=second.rows[-1][0])
    assert (_names(third), third.has_previous, third.has_next) == (names[6:], True, False)
    assert await HOSTS.count(db) == 7


async def test_a_list_is_read_backward_from_its_end(db: Database) -> None:
    names = await _hosts(db)
    last = await _page(db, last=3)
    assert (_names(last), last.has_previous, last.has_next) == (names[4:], True, False)
    middle = await _page(db, last=3, before=last.rows[0][0])
    assert (_names(middle), middle.has_previous, middle.has_next) == (names[1:4], True, True)
    start = await _page(db, last=3, before=middle.rows[0][0])
    assert (_names(start), start.has_previous, start.has_next) == (names[:1], False, True)


async def test_a_page_can_lie_between_two_cursors(db: Database) -> None:
    names = await _hosts(db)
    cursors = [cursor for cursor, _ in (await _page(db)).rows]
    between = {"after": cursors[1], "before": cursors[5]}
    assert _names(await _page(db, first=10, **between)) == names[2:5]
    assert _names(await _page(db, last=2, **between)) == names[3:5]
    assert _names(await _page(db, first=2, **between)) == names[2:4]


async def test_a_page_that_the_list_fills_exactly_is_the_last(db: Database) -> None:
    await _hosts(db, 3)
    for arguments in ({"first": 3}, {"last": 3}):
        page = await _page(db, **arguments)
        assert (len(page.rows), page.has_previous, page.has_next) == (3, False, False)


async def test_a_page_of_nothing_tells_whether_there_is_something(db: Database) -> None:
    await _hosts(db, 1)
    page = await _page(db, first=0)
    assert (page.rows, page.has_next) == ([], True)


async def test_a_page_has_twenty_rows_where_nothing_is_said_and_a_hundred_at_most(db: Database) -> None:
    async with db.write() as session:
        session.add_all(Host(name=f"{n}", transport="LOCAL", port=22, user="root") for n in range(101))
    assert len((await _page(db)).rows) == 20
    assert len((await _page(db, first=100)).rows) == 100


async def test_what_comes_and_goes_moves_no_page(db: Database) -> None:
    names = await _hosts(db)
    first = await _page(db, first=3)
    await factories.host(db, name="new")
    async with db.write() as session:
        await session.delete(first.rows[-1][1])  # the row that the cursor stands for
    assert _names(await _page(db, first=3, after=first.rows[-1][0])) == names[3:6]


async def test_no_page_is_found_by_counting(postgresql_db: Database) -> None:
    db = postgresql_db  # for SQLite, SQLAlchemy writes OFFSET 0 where there is none
    await _hosts(db)
    cursor = (await _page(db, first=3)).rows[-1][0]
    with selects() as statements:
        await _page(db, first=2, after=cursor)
        await _page(db, last=2, before=cursor)
    assert len(statements) == 2
    assert not any("OFFSET" in statement for statement in statements)


@pytest.mark.parametrize("name", ["first", "last"])
@pytest.mark.parametrize("size", [-1, 101, 2**31 - 1])
def test_a_size_out_of_range_is_refused(name: str, size: int) -> None:
    arguments: dict[str, Any] = {name: size}
    with pytest.raises(InvalidInput, match=f"{name} must be from 0 to 100"):
        HOSTS.range(Arguments(**arguments))


def test_all_problems_of_a_page_are_told_at_once() -> None:
    with pytest.raises(InvalidInput) as refused:
        HOSTS.range(Arguments(first=-1, after="x", last=101, before="y"))
    assert [(problem.path, problem.code) for problem in refused.value.problems] == [
        (("first",), "RANGE"),
        (("last",), "RANGE"),
        (("last",), "EXCLUSIVE"),
        (("after",), "CURSOR"),
        (("before",), "CURSOR"),
    ]


def test_a_cursor_is_read_as_it_was_made() -> None:
    key = uuid4()
    assert HOSTS.position("after", HOSTS.cursor([key])) == (key,)
    assert LOG.position("after", LOG.cursor([7])) == (7,)
    assert DEPLOYMENT_LOG.position("after", DEPLOYMENT_LOG.cursor([1, 7])) == (1, 7)
    assert CHANGES.position("after", CHANGES.cursor([2**40])) == (2**40,)


@pytest.mark.parametrize(
    ("listing", "cursor"),
    [
        (HOSTS, DEPLOYMENTS.cursor([SOME_ID])),
        (DEPLOYMENTS, HOSTS.cursor([SOME_ID])),
        (LOG, OF_DEPLOYMENT.cursor([1])),
        (LOG, DEPLOYMENT_LOG.cursor([1, 1])),
        (DEPLOYMENT_LOG, LOG.cursor([1])),
        (CHANGES, LOG.cursor([1])),
        (RUNS, OF_DEPLOYMENT.cursor([1])),
        (DEPLOYMENTS, ALL[Order(OrderField.PROJECT_NAME)].cursor(["a", SOME_ID])),
        (ALL[Order(OrderField.PROJECT_NAME)], ALL[Order(OrderField.UPDATED_AT)].cursor(["a", SOME_ID])),
        (OF_DEPLOYMENT, RUNS.cursor([SOME_ID])),
    ],
)
def test_the_cursor_of_another_list_is_refused(listing: Listing[Any], cursor: str) -> None:
    with pytest.raises(InvalidInput, match="after is not a cursor of this list"):
        listing.position("after", cursor)


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "=",
        "a",
        "====",
        "W10",
        _cursor(),
        _cursor("hosts"),
        _cursor("hosts", "x"),
        _cursor("hosts", 5),
        _cursor("hosts", None),
        _cursor("hosts", ["x"]),
        _cursor("hosts", str(SOME_ID), 1),
        _cursor([["hosts"]]),
        base64.b64encode(b"5").decode(),
        base64.b64encode(b'{"hosts": 1}').decode(),
        base64.b64encode(b"\xff\xfe").decode(),
        base64.b64encode(b"[" * 100_000).decode(),
        base64.b64encode(b"1" * 10_000).decode(),
        LONG,
        *TEMPLATES,
        *PATHS,
        *UNPRINTABLE,
    ],
    ids=short,
)
def test_what_is_no_cursor_is_refused(cursor: str) -> None:
    with pytest.raises(InvalidInput, match="after is not a cursor of this list"):
        HOSTS.position("after", cursor)


@pytest.mark.parametrize(
    "number", [-1, 2**31, 2**63, 10**4000, 1.5, 1e300, True, None, "1", str(SOME_ID), [], {}], ids=short
)
def test_a_number_that_no_row_can_have_is_refused(number: object) -> None:
    with pytest.raises(InvalidInput):
        LOG.position("after", _cursor("log", number))


@pytest.mark.parametrize(
    "moment",
    [
        "2026-01-31T12:00:00",
        "2026-01-31T12:00:00+01:00",
        "0001-01-01T00:00:00+01:00",
        "2026-02-30T12:00:00+00:00",
        1,
        None,
        [],
        *UNPRINTABLE,
    ],
    ids=short,
)
def test_a_time_that_no_cursor_has_is_refused(moment: object) -> None:
    listing = ALL[Order(OrderField.UPDATED_AT)]
    with pytest.raises(InvalidInput):
        listing.position("after", _cursor("deployments UPDATED_AT", moment, str(SOME_ID)))


@pytest.mark.parametrize("name", [*UNSTORABLE, 1, None, []], ids=short)
def test_a_name_that_no_cursor_has_is_refused(name: object) -> None:
    listing = ALL[Order(OrderField.PROJECT_NAME)]
    with pytest.raises(InvalidInput):
        listing.position("after", _cursor("deployments PROJECT_NAME", name, str(SOME_ID)))


def test_a_position_is_what_its_cursor_was_made_of() -> None:
    for field, value in ((OrderField.UPDATED_AT, factories.LONG_AGO), (OrderField.PROJECT_NAME, "☃")):
        listing = ALL[Order(field)]
        assert listing.position("after", listing.cursor([value, SOME_ID])) == (value, SOME_ID)


@pytest.mark.parametrize("listing", [LOG, OF_DEPLOYMENT])
async def test_the_largest_cursor_is_behind_everything(db: Database, listing: Listing[Any]) -> None:
    run = await factories.run(db)
    await factories.log(db, run, 1)
    wanted = listing.range(Arguments(after=listing.cursor([2**31 - 1])))
    parent = run.id if listing is LOG else run.deployment_id
    assert len((await listing.pages(db, wanted, [parent]))[parent].rows) == (1 if listing.descending else 0)


def _sequences(page: Page[LogEntry]) -> list[int]:
    return [entry.sequence for _, entry in page.rows]


async def test_pages_below_many_parents_are_one_statement(db: Database) -> None:
    full = [await factories.run(db) for _ in range(3)]
    for run in full:
        await factories.log(db, run, 5)
    parents = [run.id for run in full] + [uuid4() for _ in range(MAX_PARENTS - 3)]
    with selects() as statements:
        pages = await LOG.pages(db, LOG.range(Arguments(first=2)), parents)
    assert len(statements) == 1
    assert list(pages) == parents
    assert [_sequences(pages[parent]) for parent in parents] == [[1, 2]] * 3 + [[]] * (MAX_PARENTS - 3)
    assert [pages[parent].has_next for parent in parents[:4]] == [True] * 3 + [False]


async def test_more_parents_than_one_statement_takes_are_all_answered(db: Database) -> None:
    run = await factories.run(db)
    await factories.log(db, run, 1)
    parents = [uuid4() for _ in range(MAX_PARENTS)] + [run.id]
    with selects() as statements:
        pages = await LOG.pages(db, LOG.range(Arguments()), parents)
    assert len(statements) == 2
    assert _sequences(pages[run.id]) == [1]


async def test_the_counts_of_many_parents_are_one_statement(db: Database) -> None:
    run, empty = await factories.run(db), await factories.run(db)
    await factories.log(db, run, 3)
    with selects() as statements:
        assert await LOG.counts(db, [run.id, empty.id]) == {run.id: 3, empty.id: 0}
    assert len(statements) == 1


async def test_a_page_below_a_parent_goes_both_ways(db: Database) -> None:
    run, other = await factories.run(db), await factories.run(db)
    for each in (run, other):
        await factories.log(db, each, 6)

    async def page(**arguments: Any) -> Page[LogEntry]:
        return (await LOG.pages(db, LOG.range(Arguments(**arguments)), [other.id, run.id]))[run.id]

    cursors = [cursor for cursor, _ in (await page()).rows]
    assert _sequences(await page(first=2, after=cursors[1])) == [3, 4]
    assert _sequences(await page(last=2)) == [5, 6]
    backward = await page(last=2, before=cursors[3])
    assert (_sequences(backward), backward.has_previous, backward.has_next) == ([2, 3], True, True)


async def test_the_log_of_a_deployment_goes_through_its_runs(db: Database) -> None:
    deployment = await factories.deployment(db)
    for _ in range(3):
        await factories.log(db, await factories.run(db, deployment, RunStatus.FAILED), 4)
    await factories.log(db, await factories.run(db, to=RunStatus.FAILED), 4)

    async def read(step: Callable[[str | None], Arguments]) -> list[list[int]]:
        """Pages until there is no more, each going on at the end of the one before."""
        pages: list[list[int]] = []
        cursor: str | None = None
        while True:
            wanted = DEPLOYMENT_LOG.range(step(cursor))
            page = (await DEPLOYMENT_LOG.pages(db, wanted, [deployment.id]))[deployment.id]
            pages.append(_sequences(page))
            if not (page.has_previous if wanted.backward else page.has_next):
                return pages
            cursor = page.rows[0 if wanted.backward else -1][0]

    forward = await read(lambda cursor: Arguments(first=5, after=cursor))
    assert forward == [[1, 2, 3, 4, 1], [2, 3, 4, 1, 2], [3, 4]]
    backward = await read(lambda cursor: Arguments(last=5, before=cursor))
    assert backward == [[4, 1, 2, 3, 4], [3, 4, 1, 2, 3], [1, 2]]
    assert await DEPLOYMENT_LOG.counts(db, [deployment.id]) == {deployment.id: 12}


async def test_deployments_are_listed_below_host_and_package_newest_first(db: Database) -> None:
    host, package = await factories.host(db), await factories.package(db)
    both = [await factories.deployment(db, on=host, of=package) for _ in range(3)]
    await factories.deployment(db, on=host)
    await factories.deployment(db, of=package)
    for listing, parent in ((ON_HOST[NEWEST_FIRST], host.id), (OF_PACKAGE[NEWEST_FIRST], package.id)):
        page = (await listing.pages(db, listing.range(Arguments()), [parent]))[parent]
        ids = [deployment.id for _, deployment in page.rows]
        assert ids == sorted(ids, reverse=True)
        assert len(ids) == 4
        assert {deployment.id for deployment in both} < set(ids)
