"""Keyset pagination: a page starts after a row, not at an offset, so that every page of a list costs the same."""

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
    """The direction of an order."""

    ASC = "ASC"
    DESC = "DESC"


@dataclass(frozen=True)
class Arguments:
    """The requested page, in the arguments of Relay's connections."""

    first: int | None = None
    after: str | None = None
    last: int | None = None
    before: str | None = None


class Filter(Protocol):
    """Which rows a list contains.  Equal filters have equal hashes: lists below several parents are read together."""

    def conditions(self) -> list[ColumnElement[bool]]:
        """Return the conditions of the filter, all of which must hold."""
        ...


@dataclass(frozen=True)
class Page(Generic[Model]):
    """The rows of a page in the order of the list, each with its cursor."""

    rows: list[tuple[str, Model]]
    has_next: bool
    has_previous: bool


@dataclass(frozen=True)
class Range:
    """`Arguments` after validation."""

    size: int
    backward: bool
    after: tuple[Any, ...] | None
    before: tuple[Any, ...] | None


@dataclass(frozen=True, eq=False)  # a listing is a constant, and is compared by identity
class Listing(Generic[Model]):
    """One list of the API: its rows, their order, and their parent."""

    kind: str  # identifies the list in its cursors, so that a cursor of another list is refused
    entity: type[Model]
    key: tuple[SQLColumnExpression[Any], ...]  # unique within the list; its columns are indexed
    descending: bool = True
    parent: SQLColumnExpression[UUID] | None = None
    join: tuple[type[Base], ColumnElement[bool]] | None = None

    async def page(self, db: Database, wanted: Range, *where: ColumnElement[bool]) -> Page[Model]:
        """Return the requested page of the rows that match `where`."""
        async with db.read() as session:
            rows = (await session.execute(self._select(wanted).where(*where))).all()
        return self._page(rows, wanted)

    async def pages(
        self, db: Database, wanted: Range, parents: Sequence[UUID], *where: ColumnElement[bool]
    ) -> dict[UUID, Page[Model]]:
        """Return the page of the matching rows below each of `parents`, with one statement per 100 parents."""
        found: dict[UUID, list[Row[Any]]] = defaultdict(list)
        async with db.read() as session:
            for start in range(0, len(parents), MAX_PARENTS):
                statement = self._select_below(wanted, parents[start : start + MAX_PARENTS], *where)
                for row in (await session.execute(statement)).all():
                    found[row[-1]].append(row)
        return {parent: self._page(found[parent], wanted) for parent in parents}

    async def count(self, db: Database, *where: ColumnElement[bool]) -> int:
        """Return the number of rows that match `where`."""
        async with db.read() as session:
            return await session.scalar(self._from(select(func.count())).where(*where)) or 0

    async def counts(self, db: Database, parents: Sequence[UUID], *where: ColumnElement[bool]) -> dict[UUID, int]:
        """Return the number of rows that match `where` below each of `parents`."""
        assert self.parent is not None
        counting = self._from(select(self.parent, func.count())).where(self.parent.in_(parents), *where)
        statement = counting.group_by(self.parent)
        async with db.read() as session:
            counted = {row[0]: row[1] for row in await session.execute(statement)}
        return {parent: counted.get(parent, 0) for parent in parents}

    def range(self, arguments: Arguments) -> Range:
        """Validate the arguments and return the range that they request.  Raises: InvalidInput."""
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
        """Return the cursor of the row with `key`."""
        parts = [_plain(part) for part in key]
        return base64.urlsafe_b64encode(json.dumps([self.kind, *parts]).encode()).decode().rstrip("=")

    def position(self, argument: str, cursor: str) -> tuple[Any, ...]:
        """Return the key in `cursor`.  Raises: InvalidInput if it is not a cursor of this list."""
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
            pass  # reported below, like a cursor of another list
        check.add(argument, "CURSOR", f"{argument} is not a cursor of this list.")
        return None

    def _from(self, statement: Select[*tuple[Any, ...]]) -> Select[*tuple[Any, ...]]:
        statement = statement.select_from(self.entity)
        return statement if self.join is None else statement.join(*self.join)

    def _select(self, wanted: Range) -> Select[Any]:
        """Select rows and keys from the requested end, one more than requested to detect whether there are more."""
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
        """Select the same for each parent, with the parent as the last column.

        It is a UNION of limited selects, each using an index: a window function would read all rows of every parent.
        """
        assert self.parent is not None
        page = self._select(wanted).where(*where).add_columns(self.parent.label("page_parent"))
        parts = [page.where(self.parent == parent).subquery() for parent in parents]
        union = union_all(*(select(part) for part in parts)).subquery()
        keys = [union.c[f"page_key_{number}"] for number in range(len(self.key))]
        # Each part is ordered, and the rows of one parent are from one part, but a UNION guarantees no order.
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
    """Return a part of a key as a JSON value."""
    if isinstance(part, datetime):
        return part.isoformat()
    return str(part) if isinstance(part, UUID) else part


def _part(part: Any, column: SQLColumnExpression[Any]) -> UUID | int | str | datetime:
    """Return a part of a cursor as a value that `column` can have.  Raises: ValueError."""
    kind = cast(ColumnElement[Any], column).type
    if isinstance(kind, Uuid) and isinstance(part, str):
        return UUID(part)
    if isinstance(kind, Text) and isinstance(part, str) and names.can_be_stored(part):
        return part
    if isinstance(kind, UTCDateTime) and isinstance(part, str):
        moment = datetime.fromisoformat(part)
        # As `cursor` writes it.  With other offsets a time may be outside the years that exist in UTC.
        if moment.utcoffset() == timedelta(0):
            return moment
    bits = 63 if isinstance(kind, BigInteger) else 31  # the database rejects comparisons with larger numbers
    if isinstance(kind, Integer) and type(part) is int and 0 <= part < 2**bits:
        return part
    raise ValueError
