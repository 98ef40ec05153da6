"""Pages of lists by keyset: a page begins behind a row, never at an offset, and costs the same wherever it is."""

import base64
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Generic, Protocol, TypeVar, cast
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Integer,
    Row,
    Select,
    SQLColumnExpression,
    Text,
    Uuid,
    func,
    select,
    tuple_,
    union_all,
)
from sqlalchemy.orm import aliased

from db.database import Database
from db.models import Base, UTCDateTime
from resolvers import names
from resolvers.rules import Check

DEFAULT_SIZE = 20
MAX_SIZE = 100
MAX_PARENTS = 100  # lists in one statement; SQLite takes 500 parts of a UNION

Model = TypeVar("Model", bound=Base)


class OrderDirection(StrEnum):
    """Which end of an order a list begins with."""

    ASC = "ASC"
    DESC = "DESC"


@dataclass(frozen=True)
class Arguments:
    """Which page is asked for, as Relay's connections say it."""

    first: int | None = None
    after: str | None = None
    last: int | None = None
    before: str | None = None


class Filter(Protocol):
    """Which rows a list has.  Filters that are equal are hashed alike: lists below many parents are read together."""

    def conditions(self) -> list[ColumnElement[bool]]:
        """The filter as conditions that must all hold."""
        ...


@dataclass(frozen=True)
class Page(Generic[Model]):
    """A page's rows in the list's order, each with its cursor."""

    rows: list[tuple[str, Model]]
    has_next: bool
    has_previous: bool


@dataclass(frozen=True)
class Range:
    """`Arguments` that were found to be right."""

    size: int
    backward: bool
    after: tuple[Any, ...] | None
    before: tuple[Any, ...] | None


@dataclass(frozen=True, eq=False)  # a listing is a constant, and is compared as one
class Listing(Generic[Model]):
    """One list that the API has: what is in it, in which order, and below which parent."""

    kind: str  # names the list in its cursors, so that another list's cursor is refused
    entity: type[Model]
    key: tuple[SQLColumnExpression[Any], ...]  # unique within the list; its columns have an index
    descending: bool = True
    parent: SQLColumnExpression[UUID] | None = None
    join: tuple[type[Base], ColumnElement[bool]] | None = None

    async def page(self, db: Database, wanted: Range, *where: ColumnElement[bool]) -> Page[Model]:
        """The page of the rows that fulfil `where`."""
        async with db.read() as session:
            rows = (await session.execute(self._select(wanted).where(*where))).all()
        return self._page(rows, wanted)

    async def pages(
        self, db: Database, wanted: Range, parents: Sequence[UUID], *where: ColumnElement[bool]
    ) -> dict[UUID, Page[Model]]:
        """The page of the rows below each of `parents` that fulfil `where`, in one statement for up to 100 of them."""
        found: dict[UUID, list[Row[Any]]] = defaultdict(list)
        async with db.read() as session:
            for start in range(0, len(parents), MAX_PARENTS):
                statement = self._select_below(wanted, parents[start : start + MAX_PARENTS], *where)
                for row in (await session.execute(statement)).all():
                    found[row[-1]].append(row)
        return {parent: self._page(found[parent], wanted) for parent in parents}

    async def count(self, db: Database, *where: ColumnElement[bool]) -> int:
        """How many rows fulfil `where`."""
        async with db.read() as session:
            return await session.scalar(self._from(select(func.count())).where(*where)) or 0

    async def counts(self, db: Database, parents: Sequence[UUID], *where: ColumnElement[bool]) -> dict[UUID, int]:
        """How many rows that fulfil `where` each of `parents` has."""
        assert self.parent is not None
        counting = self._from(select(self.parent, func.count())).where(self.parent.in_(parents), *where)
        statement = counting.group_by(self.parent)
        async with db.read() as session:
            counted = {row[0]: row[1] for row in await session.execute(statement)}
        return {parent: counted.get(parent, 0) for parent in parents}

    def range(self, arguments: Arguments) -> Range:
        """What the arguments ask for.  Raises: InvalidInput."""
        check = Check()
        for name, size in (("first", arguments.first), ("last", arguments.last)):
            if size is not None and not 0 <= size <= MAX_SIZE:
                check.add(name, "RANGE", f"{name} must be from 0 to {MAX_SIZE}.")
        if arguments.first is not None and arguments.last is not None:
            check.add("last", "EXCLUSIVE", "first and last must not be given together.")
        after = self._position(check, "after", arguments.after)
        before = self._position(check, "before", arguments.before)
        check.done()
        backward = arguments.last is not None
        size = arguments.last if backward else arguments.first
        return Range(size=DEFAULT_SIZE if size is None else size, backward=backward, after=after, before=before)

    def cursor(self, key: Sequence[Any]) -> str:
        """The cursor of the row with `key`."""
        parts = [_plain(part) for part in key]
        return base64.urlsafe_b64encode(json.dumps([self.kind, *parts]).encode()).decode().rstrip("=")

    def position(self, argument: str, cursor: str) -> tuple[Any, ...]:
        """The key that `cursor` stands for.  Raises: InvalidInput where it is no cursor of this list."""
        check = Check()
        position = self._position(check, argument, cursor)
        check.done()
        assert position is not None
        return position

    def _position(self, check: Check, argument: str, cursor: str | None) -> tuple[Any, ...] | None:
        if cursor is None:
            return None
        try:
            padded = cursor + "=" * (-len(cursor) % 4)
            kind, *parts = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
            if kind == self.kind and len(parts) == len(self.key):
                return tuple(_part(part, column) for part, column in zip(parts, self.key, strict=True))
        except (ValueError, TypeError, RecursionError):
            pass  # reported below, as for a cursor of another list
        check.add(argument, "CURSOR", f"{argument} is not a cursor of this list.")
        return None

    def _from(self, statement: Select[*tuple[Any, ...]]) -> Select[*tuple[Any, ...]]:
        statement = statement.select_from(self.entity)
        return statement if self.join is None else statement.join(*self.join)

    def _select(self, wanted: Range) -> Select[Any]:
        """Rows and keys from the wanted end on, one more than wanted to see whether there are more."""
        key = tuple_(*self.key)
        statement = self._from(select(self.entity, *self._labelled_key()))
        if wanted.after is not None:
            statement = statement.where(key < wanted.after if self.descending else key > wanted.after)
        if wanted.before is not None:
            statement = statement.where(key > wanted.before if self.descending else key < wanted.before)
        falling = self.descending != wanted.backward
        order = [column.desc() if falling else column.asc() for column in self.key]
        return statement.order_by(*order).limit(wanted.size + 1)

    def _select_below(self, wanted: Range, parents: Sequence[UUID], *where: ColumnElement[bool]) -> Select[Any]:
        """`_select` for each parent, with the parent as last column.

        A UNION of limited selects, each along an index: a window function would read all rows of every parent.
        """
        assert self.parent is not None
        page = self._select(wanted).where(*where).add_columns(self.parent.label("page_parent"))
        parts = [page.where(self.parent == parent).subquery() for parent in parents]
        union = union_all(*(select(part) for part in parts)).subquery()
        keys = [union.c[f"page_key_{number}"] for number in range(len(self.key))]
        # Each part is in order, and the rows of one parent come from one part; but a UNION promises no order.
        falling = self.descending != wanted.backward
        order = [key.desc() if falling else key.asc() for key in keys]
        return select(aliased(self.entity, union), *keys, union.c.page_parent).order_by(*order)

    def _labelled_key(self) -> list[ColumnElement[Any]]:
        return [column.label(f"page_key_{number}") for number, column in enumerate(self.key)]

    def _page(self, rows: Sequence[Row[Any]], wanted: Range) -> Page[Model]:
        more = len(rows) > wanted.size
        kept = [(self.cursor(row[1 : 1 + len(self.key)]), row[0]) for row in rows[: wanted.size]]
        if wanted.backward:
            return Page(kept[::-1], has_next=wanted.before is not None, has_previous=more)
        return Page(kept, has_next=more, has_previous=wanted.after is not None)


def _plain(part: Any) -> Any:
    """A part of a key as JSON has it."""
    if isinstance(part, datetime):
        return part.isoformat()
    return str(part) if isinstance(part, UUID) else part


def _part(part: Any, column: SQLColumnExpression[Any]) -> UUID | int | str | datetime:
    """A part of a cursor as a value that `column` can have.  Raises: ValueError."""
    kind = cast(ColumnElement[Any], column).type
    if isinstance(kind, Uuid) and isinstance(part, str):
        return UUID(part)
    if isinstance(kind, Text) and isinstance(part, str) and names.can_be_stored(part):
        return part
    if isinstance(kind, UTCDateTime) and isinstance(part, str):
        moment = datetime.fromisoformat(part)
        if moment.utcoffset() == timedelta(
            0
        ):  # as `cursor` writes it; others may be none of the years that there are in UTC
            return moment
    bits = 63 if isinstance(kind, BigInteger) else 31  # the database refuses to compare with more
    if isinstance(kind, Integer) and type(part) is int and 0 <= part < 2**bits:
        return part
    raise ValueError
