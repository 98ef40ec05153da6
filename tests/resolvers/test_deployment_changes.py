"""What a subscriber to deployments sees: the state now, then every change once and in order, however slow it is."""

import asyncio
from contextlib import AsyncExitStack, aclosing

import pytest
from sqlalchemy import Update, literal_column, select, update

from db.broadcast import Broadcast, Everything
from db.database import Database
from db.models import Deployment, DeploymentStatus, RunStatus, StatusEvent
from resolvers import deployments, tail
from resolvers.deployment_changes import CHANGES, Change, Changes, watch, watch_all
from resolvers.deployments import Filter
from resolvers.errors import InvalidInput, NotFound
from resolvers.runs import LOG
from tests import factories
from tests.support.attacks import UNKNOWN
from tests.support.statements import selects
from tests.support.watching import play, take, take_rest

PENDING, RUNNING, SUCCESS, FAILED = DeploymentStatus


async def _all_sequences(db: Database, *of: Deployment) -> list[int]:
    async with db.read() as session:
        ids = [deployment.id for deployment in of]
        events = select(StatusEvent.sequence).where(StatusEvent.deployment_id.in_(ids))
        return list(await session.scalars(events.order_by(StatusEvent.sequence)))


def _statuses(changes: list[Change]) -> list[DeploymentStatus]:
    return [change.event.status for change in changes]


def _sequences(changes: list[Change]) -> list[int]:
    return [change.event.sequence for change in changes]


async def test_the_state_now_comes_first(db: Database, broadcast: Broadcast) -> None:
    deployment = await factories.deployment(db)
    await play(db, broadcast, deployment, 2)
    run = await factories.run(db, deployment)
    async with aclosing(watch(db, broadcast, str(deployment.id))) as watched:
        [now] = await take(watched, 1)
    assert (now.event.status, now.event.run_id) == (RUNNING, run.id)
    assert now.event.deployment_id == deployment.id


async def _melt(db: Database, sequences: list[int]) -> None:
    """Give changes a status that nobody knows."""
    async with db.write() as session:
        await session.execute(_melting(sequences))


def _melting(sequences: list[int]) -> Update:
    return update(StatusEvent).where(StatusEvent.sequence.in_(sequences)).values(status=literal_column("'MELTED'"))


@pytest.mark.parametrize("melted", [slice(1, 2), slice(0, 3), slice(3, None), slice(2, 203), slice(150, None)])
@pytest.mark.parametrize("is_late", [True, False])
async def test_changes_that_cannot_be_read_are_skipped(
    db: Database, broadcast: Broadcast, melted: slice, is_late: bool
) -> None:
    deployment = await factories.deployment(db)
    async with db.write() as session:
        session.add_all(StatusEvent(deployment_id=deployment.id, status=RUNNING) for _ in range(250))
    first, *sequences = await _all_sequences(db, deployment)
    await _melt(db, sequences[melted])
    kept = [sequence for sequence in sequences if sequence not in sequences[melted]]
    after = CHANGES.cursor([first if not is_late else sequences[-1]])
    async with aclosing(watch_all(db, broadcast, after)) as watched:
        seen = [] if is_late else await take(watched, len(kept))
        await play(db, broadcast, deployment, 1)
        last = await take(watched, 2)
    assert _sequences(seen) == ([] if is_late else kept)
    assert _statuses(last) == [RUNNING, SUCCESS]


async def test_changes_that_cannot_be_read_and_come_while_they_are_watched_are_skipped(
    db: Database, broadcast: Broadcast
) -> None:
    deployment = await factories.deployment(db)
    async with aclosing(watch_all(db, broadcast)) as watched:
        coming = asyncio.create_task(take(watched, 2))
        async with db.write() as session:
            events = [StatusEvent(deployment_id=deployment.id, status=RUNNING) for _ in range(250)]
            session.add_all(events)
            await session.flush()
            await session.execute(_melting([event.sequence for event in events]))
        await play(db, broadcast, deployment, 1)
        assert _statuses(await coming) == [RUNNING, SUCCESS]


async def test_changes_come_as_they_happen(db: Database, broadcast: Broadcast) -> None:
    deployment = await factories.deployment(db)
    async with aclosing(watch(db, broadcast, str(deployment.id))) as watched:
        assert _statuses(await take(watched, 1)) == [PENDING]
        for expected in (SUCCESS, FAILED):
            coming = asyncio.create_task(take(watched, 2))
            await play(db, broadcast, await factories.deployment(db), 1)  # another one's changes are not seen
            await factories.run(db, deployment, RunStatus.SUCCESS if expected is SUCCESS else RunStatus.FAILED)
            broadcast.notify(deployment.id)
            assert _statuses(await coming) == [RUNNING, expected]


async def test_a_slow_reader_misses_nothing_and_sees_nothing_twice(db: Database, broadcast: Broadcast) -> None:
    deployment = await factories.deployment(db)
    async with aclosing(watch(db, broadcast, str(deployment.id))) as watched:
        first = await take(watched, 1)
        await play(db, broadcast, deployment, 60)  # more changes than are read at once
        seen = first + await take(watched, 120)
        assert _sequences(seen) == await _all_sequences(db, deployment)
        assert _statuses(seen)[:5] == [PENDING, RUNNING, SUCCESS, RUNNING, FAILED]
        coming = asyncio.create_task(take(watched, 2))
        await play(db, broadcast, deployment, 1)
        assert _statuses(await coming) == [RUNNING, SUCCESS]


async def test_readers_beside_a_writer_miss_nothing(db: Database, broadcast: Broadcast) -> None:
    deployment = await factories.deployment(db)

    async def read() -> list[int]:
        async with aclosing(watch(db, broadcast, str(deployment.id))) as watched:
            seen = await take(watched, 1)
            reading.release()
            return _sequences(seen + await take(watched, 20))

    reading = asyncio.Semaphore(0)
    readers = [asyncio.create_task(read()) for _ in range(3)]
    for _ in readers:
        await reading.acquire()
    await play(db, broadcast, deployment, 10)
    expected = await _all_sequences(db, deployment)
    assert await asyncio.gather(*readers) == [expected] * 3


async def test_a_cursor_goes_on_where_it_stands(db: Database, broadcast: Broadcast) -> None:
    deployment = await factories.deployment(db)
    async with aclosing(watch(db, broadcast, str(deployment.id))) as watched:
        [now] = await take(watched, 1)
    await play(db, broadcast, deployment, 2)
    async with aclosing(watch(db, broadcast, str(deployment.id), now.cursor)) as watched:
        changes = await take(watched, 3)
    async with aclosing(watch(db, broadcast, str(deployment.id), changes[-1].cursor)) as watched:
        changes += await take(watched, 1)
    assert _sequences([now, *changes]) == await _all_sequences(db, deployment)


async def test_watching_ends_when_the_deployment_is_deleted(db: Database, broadcast: Broadcast) -> None:
    deployment = await factories.deployment(db)
    async with aclosing(watch(db, broadcast, str(deployment.id))) as watched:
        await take(watched, 1)
        rest = asyncio.create_task(take_rest(watched))
        await deployments.remove(db, broadcast, str(deployment.id))
        assert await rest == []


async def test_a_slow_reader_of_a_deleted_deployment_comes_to_the_end(db: Database, broadcast: Broadcast) -> None:
    deployment = await factories.deployment(db)
    await play(db, broadcast, deployment, 2)
    begin = CHANGES.cursor([0])
    async with aclosing(watch(db, broadcast, str(deployment.id), begin)) as watched:
        assert _statuses(await take(watched, 1)) == [PENDING]
        await deployments.remove(db, broadcast, str(deployment.id))
        assert _statuses(await take_rest(watched)) == [RUNNING, SUCCESS, RUNNING, FAILED]


async def test_every_change_of_any_deployment_comes_from_now_on(db: Database, broadcast: Broadcast) -> None:
    before = await factories.deployment(db)
    made = [before]
    async with aclosing(watch_all(db, broadcast)) as watched:
        first = asyncio.create_task(take(watched, 1))
        while not first.done():  # nobody is told from when on it watches
            made.append(await factories.deployment(db))
            broadcast.notify(Everything.DEPLOYMENTS)
        await play(db, broadcast, before, 1)
        [begin] = _sequences(await first)
        sequences = await _all_sequences(db, *made)
        assert begin > sequences[0]
        rest = [sequence for sequence in sequences if sequence > begin]
        assert _sequences(await take(watched, len(rest))) == rest


async def test_every_change_comes_from_a_cursor_on(db: Database, broadcast: Broadcast) -> None:
    one, two = await factories.deployment(db), await factories.deployment(db)
    await asyncio.gather(play(db, broadcast, one, 30), play(db, broadcast, two, 30))
    sequences = await _all_sequences(db, one, two)
    async with aclosing(watch_all(db, broadcast, CHANGES.cursor([sequences[0]]))) as watched:
        assert _sequences(await take(watched, 121)) == sequences[1:]


@pytest.mark.parametrize("of_all", [False, True], ids=["one", "all"])
async def test_fifty_who_watch_read_as_often_as_one(db: Database, broadcast: Broadcast, *, of_all: bool) -> None:
    deployment = await factories.deployment(db)
    cursor = CHANGES.cursor([(await _all_sequences(db, deployment))[0]])
    async with AsyncExitStack() as stack:
        all_watched = []
        for _ in range(50):
            key = str(deployment.id)
            watched = watch_all(db, broadcast, cursor) if of_all else watch(db, broadcast, key, cursor)
            all_watched.append(await stack.enter_async_context(aclosing(watched)))
        taking = [asyncio.create_task(take(watched, 2)) for watched in all_watched]
        await play(db, broadcast, deployment, 1)
        seen = [_statuses(await each) for each in taking]
        assert seen == [[RUNNING, SUCCESS]] * 50
        with selects() as statements:
            taking = [asyncio.create_task(take(watched, 2)) for watched in all_watched]
            await play(db, broadcast, deployment, 1)
            for each in taking:
                await each
        assert sum("FROM status_events" in statement for statement in statements) <= 3


async def test_who_is_behind_what_is_deleted_goes_on_with_what_comes(db: Database, broadcast: Broadcast) -> None:
    gone, kept = await factories.deployment(db), await factories.deployment(db)
    cursor = CHANGES.cursor([0])
    async with (
        aclosing(watch_all(db, broadcast, cursor)) as first,
        aclosing(watch_all(db, broadcast, cursor)) as second,
    ):
        await take(first, 2)  # they are in memory
        for deployment in (gone, kept):
            await deployments.remove(db, broadcast, str(deployment.id))
        new = await factories.deployment(db)
        broadcast.notify(Everything.DEPLOYMENTS)
        seen = [(change.event.deployment_id, change.is_deletion) for change in await take(first, 3)]
        assert seen == [(gone.id, True), (kept.id, True), (new.id, False)]
        assert (await take(second, 1))[0].event.deployment_id in {gone.id, new.id}


async def test_a_filter_lets_changes_through_that_match_before_or_after(db: Database, broadcast: Broadcast) -> None:
    host, other = await factories.host(db, labels=["ours"]), await factories.host(db)
    one = await factories.deployment(db, on=host, project_name="shop")
    two = await factories.deployment(db, on=other)
    await play(db, broadcast, one, 2)
    await play(db, broadcast, two, 2)
    begin, each = CHANGES.cursor([0]), [PENDING, RUNNING, SUCCESS, RUNNING, FAILED]
    for narrowed, expected in (
        (Filter(), [*each, *each]),
        (Filter(host_id=str(host.id)), each),
        (Filter(package_id=str(two.package_id)), each),
        (Filter(host_labels_any=frozenset({"ours"})), each),
        (Filter(search="SHO"), each),
        (Filter(host_id=str(host.id), status_in=frozenset({PENDING})), [PENDING, RUNNING]),
        (Filter(host_id=str(host.id), status_in=frozenset({SUCCESS})), [SUCCESS, RUNNING]),
        (Filter(host_id=str(host.id), status_in=frozenset({PENDING, FAILED})), [PENDING, RUNNING, FAILED]),
    ):
        async with aclosing(watch_all(db, broadcast, begin, narrowed)) as watched:
            assert sorted(_statuses(await take(watched, len(expected)))) == sorted(expected), narrowed


async def test_a_filtered_stream_goes_on_behind_what_does_not_match(db: Database, broadcast: Broadcast) -> None:
    one, two = await factories.deployment(db), await factories.deployment(db)
    narrowed, begin = Filter(host_id=str(one.host_id)), CHANGES.cursor([0])
    async with aclosing(watch_all(db, broadcast, begin, narrowed)) as watched:
        seen = await take(watched, 1)
        coming = asyncio.create_task(take(watched, 2))
        async with db.write() as session:  # more than are read at once
            session.add_all(StatusEvent(deployment_id=two.id, status=RUNNING) for _ in range(250))
        broadcast.notify(Everything.DEPLOYMENTS)
        await play(db, broadcast, one, 1)
        seen += await coming
    assert _sequences(seen) == await _all_sequences(db, one)
    async with aclosing(watch_all(db, broadcast, seen[0].cursor, narrowed)) as watched:
        assert _sequences(await take(watched, 2)) == _sequences(seen[1:])


async def test_what_a_filter_leaves_out_is_not_read_again(db: Database, broadcast: Broadcast) -> None:
    one, two = await factories.deployment(db), await factories.deployment(db)
    await play(db, broadcast, two, 3)
    source = Changes(db, narrowed=Filter(host_id=str(one.host_id)))
    last = (await _all_sequences(db, one, two))[-1]
    piece = await source.read(0)
    assert piece is not None
    assert (_sequences(list(piece.entries)), piece.end) == (await _all_sequences(db, one), last)
    assert await source.read(last) == tail.Piece([])


async def _remove(db: Database, broadcast: Broadcast, *removed: Deployment) -> None:
    for deployment in removed:
        await deployments.remove(db, broadcast, str(deployment.id))


async def test_a_deletion_is_a_change_of_all_and_comes_once_and_in_order(db: Database, broadcast: Broadcast) -> None:
    one, two = await factories.deployment(db), await factories.deployment(db)
    async with aclosing(watch_all(db, broadcast, CHANGES.cursor([0]))) as watched:
        [_, second] = await take(watched, 2)
        await play(db, broadcast, two, 1)
        seen = await take(watched, 2)
        coming = asyncio.create_task(take(watched, 2))
        await _remove(db, broadcast, one, two)
        seen += await coming
    told = [(change.event.deployment_id, change.event.status, change.is_deletion) for change in seen]
    assert told == [
        (two.id, RUNNING, False), (two.id, SUCCESS, False), (one.id, PENDING, True), (two.id, SUCCESS, True),
    ]  # fmt: skip
    assert _sequences(seen) == sorted(_sequences(seen))
    for late, expected in ((second, seen[2:]), (seen[2], seen[3:])):  # events of what is deleted are gone
        async with aclosing(watch_all(db, broadcast, late.cursor)) as watched:
            told_late = await take(watched, len(expected))
        assert _sequences(told_late) == _sequences(expected)


async def test_a_filter_lets_deletions_through_that_matched(db: Database, broadcast: Broadcast) -> None:
    host = await factories.host(db, labels=["ours"])
    one = await factories.deployment(db, on=host, project_name="shop")
    others = [await factories.deployment(db) for _ in range(3)]
    begin = CHANGES.cursor([(await _all_sequences(db, one, *others))[-1]])
    await _remove(db, broadcast, others[0], one, others[1])
    for narrowed in (
        Filter(host_id=str(host.id)),
        Filter(package_id=str(one.package_id), status_in=frozenset({PENDING})),
        Filter(host_labels_any=frozenset({"ours"})),
        Filter(search="Shop"),
    ):
        async with aclosing(watch_all(db, broadcast, begin, narrowed)) as watched:
            [change] = await take(watched, 1)
            assert (change.event.deployment_id, change.is_deletion) == (one.id, True)
    running = Filter(status_in=frozenset({RUNNING}))
    await play(db, broadcast, others[2], 1)
    async with aclosing(watch_all(db, broadcast, begin, running)) as watched:
        assert (await take(watched, 1))[0].event.deployment_id == others[2].id


async def test_deletions_on_other_hosts_are_not_told(db: Database, broadcast: Broadcast) -> None:
    ours, theirs = [await factories.host(db, labels=[label]) for label in ("ours", "theirs")]
    one, two = await factories.deployment(db, on=theirs), await factories.deployment(db, on=ours)
    await _remove(db, broadcast, one, two)
    limited = db.limited_to(frozenset({"ours"}))
    async with aclosing(watch_all(limited, broadcast, CHANGES.cursor([0]))) as watched:
        assert [change.event.deployment_id for change in await take(watched, 1)] == [two.id]


async def test_deletions_beside_changes_that_cannot_be_read_are_all_told(db: Database, broadcast: Broadcast) -> None:
    kept = await factories.deployment(db)
    gone = [await factories.deployment(db) for _ in range(4)]
    for deployment in gone:
        async with db.write() as session:
            events = [StatusEvent(deployment_id=kept.id, status=RUNNING) for _ in range(60)]
            session.add_all(events)
            await session.flush()
            await session.execute(_melting([event.sequence for event in events[:-1]]))
        await _remove(db, broadcast, deployment)
    source = Changes(db)
    seen: list[Change] = []
    position = 0
    while (piece := await source.read(position)) and (piece.entries or piece.end):
        seen += piece.entries
        position = max([piece.end or 0, *_sequences(list(piece.entries))])
    assert _sequences(seen) == sorted(_sequences(seen))
    told = [(change.event.deployment_id, change.is_deletion) for change in seen]
    expected = [(kept.id, False)]
    for deployment in gone:
        expected += [(kept.id, False), (deployment.id, True)]
    assert told == expected
    last = await source.read_end()
    assert last is not None
    assert last.end is not None
    first, end = last.entries[0].event.sequence, last.end  # what is behind `end` is read next
    assert _sequences(list(last.entries)) == [sequence for sequence in _sequences(seen) if first <= sequence <= end]


async def test_what_is_not_there_is_not_watched(db: Database, broadcast: Broadcast) -> None:
    for unknown in UNKNOWN:
        with pytest.raises(NotFound):
            await anext(watch(db, broadcast, unknown))


async def test_a_cursor_of_something_else_is_refused(db: Database, broadcast: Broadcast) -> None:
    deployment = await factories.deployment(db)
    for cursor in (LOG.cursor([1]), "x", ""):
        with pytest.raises(InvalidInput, match="after is not a cursor of this list"):
            await anext(watch(db, broadcast, str(deployment.id), cursor))
        with pytest.raises(InvalidInput, match="after is not a cursor of this list"):
            await anext(watch_all(db, broadcast, cursor))


async def test_nobody_listens_after_watching(db: Database, broadcast: Broadcast) -> None:
    deployment = await factories.deployment(db)
    for watched in (watch(db, broadcast, str(deployment.id)), watch_all(db, broadcast, CHANGES.cursor([0]))):
        async with aclosing(watched):
            await take(watched, 1)
    assert vars(broadcast)["_listeners"] == {}
