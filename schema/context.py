"""The context of an operation, `info.context`, and its loaders, which live for one operation or one event."""

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
Reserve = Callable[[int], AbstractContextManager[None]]  # raises GraphQLError if the limit would be exceeded
Together = Callable[[Database, Sequence[UUID]], Awaitable[int]]  # the bytes that would be read
Many = Callable[[Database, Sequence[UUID]], Awaitable[Mapping[UUID, Value]]]  # reads many rows by their ids


class Loaders:
    """Batches the reads of a result's rows: one statement for all rows that need the same kind of data."""

    def __init__(self, db: Database, engine: Engine, reading: Budget) -> None:
        self._db = db
        self._engine = engine
        self._reading = reading  # for large columns: their size is charged before they are read

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
            # The referencing row was read earlier, and this one may have been deleted since.
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
        """Charge the bytes that are about to be read.  Raises: AnswerTooLarge."""
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
    """A file of a package with its size in bytes."""

    key: FileKey
    size: int


class Content:
    """The bytes of a file, and what is derived from them once per operation."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self._data).hexdigest()

    @cached_property
    def text(self) -> str | None:
        """The bytes as text; None if they are not UTF-8."""
        try:
            return self._data.decode()
        except UnicodeDecodeError:
            return None

    @cached_property
    def base64(self) -> str | None:
        """The bytes in Base64; None if there is `text`."""
        return base64.b64encode(self._data).decode() if self.text is None else None


@dataclass(frozen=True)
class Below(Generic[Value]):
    """The key of a loader: one page of one list of one parent; without a range, the length of the list."""

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
    """What the resolvers of an operation act on, and the principal that sent it."""

    db: Database
    broadcast: Broadcast
    engine: Engine
    principal: Principal | None = None  # None before authentication
    address: str | None = None  # of the client
    connection_params: dict[str, object] | None = None  # the payload of a WebSocket's connection_init
    retention: timedelta = RETENTION  # of the audit log
    recheck: Callable[[], Awaitable[None]] | None = None  # raises Unauthenticated once the token is no longer valid
    reserve: Reserve | None = None  # reserves a part of the cost limit of all the token's subscriptions
    share: Callable[[], Share] | None = None  # makes the share of one more answer in the limit of all the token's
    cost: int = 0  # of each event, if the operation is a subscription
    max_answer: int = MAX_ANSWER  # bytes; also the limit on what is read from large columns
    ending: ExitStack = field(default_factory=ExitStack)  # closed when the operation has ended
    loaders: Loaders = field(init=False)
    reading: Share | None = field(init=False, default=None)  # for what the loaders read

    def __post_init__(self) -> None:
        self.everything = self.db.limited_to(None)
        if self.principal is not None:
            self.identify(self.principal)
        self.renew()

    @property
    def asker(self) -> Principal:
        """The principal that sent the operation; to be used only after authentication."""
        assert self.principal is not None
        return self.principal

    def identify(self, principal: Principal) -> None:
        """Act for `principal` from now on, with access only to its hosts and what is on them."""
        self.principal = principal
        self.db = self.everything.limited_to(principal.labels)

    @contextmanager
    def doing(self, mutation: str, named: Sequence[str]) -> Iterator[Deed]:
        """Record what is written to the database in the block as an action of the principal in the audit log."""
        deed = Deed(self.asker.name, self.asker.token_id, self.address, mutation, named, self.retention)
        plain, self.db = self.db, self.db.witnessed(deed.witness)
        try:
            yield deed
        finally:
            self.db = plain

    def renew(self) -> None:
        """Discard what was loaded, so that the next event of a subscription shows the current state."""
        self.release()
        self.reading = None if self.share is None else self.share()
        self.loaders = Loaders(self.db, self.engine, Budget(self.max_answer, self.reading))

    def release(self) -> None:
        """Stop counting what was loaded."""
        if self.reading is not None:
            self.reading.release()

    async def begin_event(self) -> None:
        """Check that the token is still valid and discard what was loaded before.  Raises: Unauthenticated."""
        if self.recheck is not None:
            await self.recheck()
        self.renew()


Info = strawberry.Info[Context, None]


class PerOperation(SchemaExtension):
    """Gives each operation a context of its own, and yields to the event loop before it.

    On a WebSocket Strawberry makes one context for the connection: its loaders would return what an earlier operation
    has read.  Yielding serves other clients between operations that many clients, or one WebSocket, send at once.
    """

    def __init__(self, pace: Pace) -> None:
        self._pace = pace

    async def on_operation(self) -> AsyncIterator[None]:
        await self._pace.turn()
        context = self.execution_context.context = replace(self.execution_context.context)
        with ExitStack() as context.ending:
            context.ending.callback(context.release)
            yield
