"""What roots and types get from `info.context`, and loaders that live for one operation or one event."""

import base64
import hashlib
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import cached_property
from typing import Any, Generic, TypeVar
from uuid import UUID

import strawberry
from strawberry.dataloader import DataLoader
from strawberry.extensions import SchemaExtension

from db import models
from db.broadcast import Broadcast
from db.database import Database
from resolvers import deployments, hosts, packages, runs, ssh_keys
from resolvers.audit import RETENTION, Deed
from resolvers.errors import NotFound
from resolvers.packages import FileKey
from resolvers.paging import Filter, Listing, Page, Range
from resolvers.tokens import Principal
from runner.engine.base import Engine
from runner.store import Place
from schema.answer import MAX_ANSWER, Budget, Share
from schema.pace import Pace

Value = TypeVar("Value")
Reserve = Callable[[int], AbstractContextManager[None]]  # raises GraphQLError where it is too much
Together = Callable[[Database, Sequence[UUID]], Awaitable[int]]  # the size of what would be read
Many = Callable[[Database, Sequence[UUID]], Awaitable[Mapping[UUID, Value]]]  # reads many rows by their ids


class Loaders:
    """Reads what the rows of a result need: one statement for all rows, whichever way they are asked for."""

    def __init__(self, db: Database, engine: Engine, reading: Budget) -> None:
        self._db = db
        self._engine = engine
        self._reading = reading  # of large columns: their size is charged before they are read

    @cached_property
    def host(self) -> DataLoader[UUID, models.Host]:
        return self._one("Host", hosts.get_many)

    @cached_property
    def ssh_key(self) -> DataLoader[UUID, models.SshKey]:
        return self._one("SSH key", ssh_keys.get_many)

    @cached_property
    def package(self) -> DataLoader[UUID, models.Package]:
        return self._one("Package", packages.get_many)

    @cached_property
    def deployment(self) -> DataLoader[UUID, models.Deployment]:
        return self._one("Deployment", deployments.get_many)

    @cached_property
    def latest_run(self) -> DataLoader[UUID, models.Run | None]:
        return self._optional(runs.latest_of)

    @cached_property
    def run(self) -> DataLoader[UUID, models.Run | None]:
        return self._optional(runs.get_many)

    @cached_property
    def place(self) -> DataLoader[UUID, Place | None]:
        return self._optional(lambda db, keys: runs.places_of(db, self._engine, keys))

    @cached_property
    def labels(self) -> DataLoader[UUID, list[str]]:
        return self._many(hosts.labels_of)

    @cached_property
    def files(self) -> DataLoader[UUID, list[models.PackageFile]]:
        return self._many(packages.files_of)

    @cached_property
    def contents(self) -> DataLoader["FileOfSize", "Content"]:
        return DataLoader(load_fn=self._contents)

    @cached_property
    def compose_file(self) -> DataLoader[UUID, str]:
        return self._one("Package", packages.compose_files_of, packages.compose_files_size)

    @cached_property
    def logins(self) -> DataLoader[UUID, list[models.RegistryLogin]]:
        return self._many(packages.logins_of)

    @cached_property
    def variables(self) -> DataLoader[UUID, list[models.Variable]]:
        return self._many(deployments.variables_of, deployments.variables_size)

    @cached_property
    def missing_variables(self) -> DataLoader[UUID, list[str]]:
        return self._many(deployments.missing_variables_of)

    @cached_property
    def phases(self) -> DataLoader[UUID, list[models.RunPhase]]:
        return self._many(runs.phases_of)

    @cached_property
    def page(self) -> DataLoader["Below[Any]", Page[Any]]:
        return DataLoader(load_fn=self._pages)

    @cached_property
    def count(self) -> DataLoader["Below[Any]", int]:
        return DataLoader(load_fn=self._counts)

    def _one(self, kind: str, get: Many[Value], size: Together | None = None) -> DataLoader[UUID, Value]:
        async def load(keys: list[UUID]) -> list[Value | BaseException]:
            await self._charge(size, keys)
            found = await get(self._db, keys)
            # What named it was read before, and it may have been deleted in between.
            return [found.get(key) or NotFound(kind=kind, id=key) for key in keys]

        return DataLoader(load_fn=load)

    def _optional(self, get: Many[Value]) -> DataLoader[UUID, Value | None]:
        async def load(keys: list[UUID]) -> list[Value | None]:
            found = await get(self._db, keys)
            return [found.get(key) for key in keys]

        return DataLoader(load_fn=load)

    def _many(self, get: Many[list[Value]], size: Together | None = None) -> DataLoader[UUID, list[Value]]:
        async def load(keys: list[UUID]) -> list[list[Value]]:
            await self._charge(size, keys)
            found = await get(self._db, keys)
            return [found.get(key, []) for key in keys]

        return DataLoader(load_fn=load)

    async def _charge(self, size: Together | None, keys: list[UUID]) -> None:
        """Count what is about to be read.  Raises: AnswerTooLarge."""
        if size is not None:
            self._reading.charge(await size(self._db, keys))

    async def _contents(self, files: list["FileOfSize"]) -> list["Content | BaseException"]:
        self._reading.charge(sum(file.size for file in files))
        found = await packages.contents_of(self._db, [file.key for file in files])
        return [
            Content(found[file.key]) if file.key in found else NotFound(kind="File", id=file.key[1]) for file in files
        ]

    async def _pages(self, keys: list["Below[Any]"]) -> list[Page[Any]]:
        pages: dict[Below[Any], Page[Any]] = {}
        for (listing, wanted, narrowed), parents in _grouped(keys).items():
            assert wanted is not None
            where = () if narrowed is None else narrowed.conditions()
            for parent, page in (await listing.pages(self._db, wanted, parents, *where)).items():
                pages[Below(listing, parent, wanted, narrowed)] = page
        return [pages[key] for key in keys]

    async def _counts(self, keys: list["Below[Any]"]) -> list[int]:
        counts: dict[Below[Any], int] = {}
        for (listing, _, narrowed), parents in _grouped(keys).items():
            where = () if narrowed is None else narrowed.conditions()
            for parent, count in (await listing.counts(self._db, parents, *where)).items():
                counts[Below(listing, parent, narrowed=narrowed)] = count
        return [counts[key] for key in keys]


@dataclass(frozen=True)
class FileOfSize:
    """A file of a package, and how many bytes it has."""

    key: FileKey
    size: int


class Content:
    """The bytes of a file, and what is made of them once for all who ask in an operation."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self._data).hexdigest()

    @cached_property
    def text(self) -> str | None:
        """None where the bytes are not UTF-8."""
        try:
            return self._data.decode()
        except UnicodeDecodeError:
            return None

    @cached_property
    def base64(self) -> str | None:
        """None where there is `text`."""
        return base64.b64encode(self._data).decode() if self.text is None else None


@dataclass(frozen=True)
class Below(Generic[Value]):
    """One page of one list below one parent; without a range, the list's length."""

    listing: Listing[Any]
    parent: UUID
    wanted: Range | None = None
    narrowed: Filter | None = None


def _grouped(keys: list[Below[Any]]) -> dict[tuple[Listing[Any], Range | None, Filter | None], list[UUID]]:
    grouped = defaultdict(list)
    for key in keys:
        grouped[key.listing, key.wanted, key.narrowed].append(key.parent)
    return grouped


@dataclass
class Context:
    """What the roots act on, and who asks."""

    db: Database
    broadcast: Broadcast
    engine: Engine
    principal: Principal | None = None  # None before it is known
    address: str | None = None  # where the request comes from
    connection_params: dict[str, object] | None = None  # what a websocket's connection_init carried
    retention: timedelta = RETENTION  # of the audit
    recheck: Callable[[], Awaitable[None]] | None = None  # raises Unauthenticated when the token is useless by now
    reserve: Reserve | None = None  # of what the token's subscriptions may cost together
    share: Callable[[], Share] | None = None  # of what the token's answers may have together, for one more
    cost: int = 0  # of each event, where the operation is a subscription
    max_answer: int = MAX_ANSWER  # bytes; as many may be read of large columns
    ending: ExitStack = field(default_factory=ExitStack)  # what is done when the operation has ended
    loaders: Loaders = field(init=False)
    reading: Share | None = field(init=False, default=None)  # of what the loaders read

    def __post_init__(self) -> None:
        self.everything = self.db.limited_to(None)
        if self.principal is not None:
            self.identify(self.principal)
        self.renew()

    @property
    def asker(self) -> Principal:
        """Who asks, known by now."""
        assert self.principal is not None
        return self.principal

    def identify(self, principal: Principal) -> None:
        """Act for `principal` from now on, who sees what is on its hosts."""
        self.principal = principal
        self.db = self.everything.limited_to(principal.labels)

    @contextmanager
    def doing(self, mutation: str, named: Sequence[str]) -> Iterator[Deed]:
        """Have what is written in the block written down as one of the principal's deeds."""
        deed = Deed(self.asker.name, self.asker.token_id, self.address, mutation, named, self.retention)
        plain, self.db = self.db, self.db.witnessed(deed.witness)
        try:
            yield deed
        finally:
            self.db = plain

    def renew(self) -> None:
        """Forget what was loaded, so that the next event of a subscription shows the state of its own time."""
        self.release()
        self.reading = None if self.share is None else self.share()
        self.loaders = Loaders(self.db, self.engine, Budget(self.max_answer, self.reading))

    def release(self) -> None:
        """Count what was loaded no longer."""
        if self.reading is not None:
            self.reading.release()

    async def begin_event(self) -> None:
        """See that the principal may still see what comes, as it is now.  Raises: Unauthenticated."""
        if self.recheck is not None:
            await self.recheck()
        self.renew()


Info = strawberry.Info[Context, None]


class PerOperation(SchemaExtension):
    """Gives each operation a context of its own.

    On a websocket Strawberry makes one context for the connection: its loaders would answer with what an earlier
    operation saw.  And lets others be served between the operations that many clients, or one websocket, send at once.
    """

    def __init__(self, pace: Pace) -> None:
        self._pace = pace

    async def on_operation(self) -> AsyncIterator[None]:
        await self._pace.turn()
        context = self.execution_context.context = replace(self.execution_context.context)
        with ExitStack() as context.ending:
            context.ending.callback(context.release)
            yield
