"""Packages: what is deployed."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from uuid import UUID

from sqlalchemy import ColumnElement, delete, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from uuid_utils.compat import uuid7

from db.database import Database
from db.encryption import Secret
from db.models import Deployment, Package, PackageFile, RegistryLogin
from resolvers import compose_file as compose_rules
from resolvers import idempotency, ids, names
from resolvers.errors import NameTaken, NotFound
from resolvers.files import DecodedFile, NewFile, decode
from resolvers.idempotency import Key, Request
from resolvers.in_use import refuse_while_used
from resolvers.paging import Listing
from resolvers.rules import Check
from runner.compose import file as compose
from runner.compose.file import Reading
from runner.compose.interpolation import Requirement
from runner.host.delivery import OVERRIDE_FILES


@dataclass(frozen=True)
class NewLogin:
    """What a new package's images are pulled with from one registry."""

    registry: str
    username: str
    password: Secret


FileKey = tuple[UUID, str]  # a package's id, and a path in it

MAX_PATHS = 20  # in Compose files that are refused in one answer

PACKAGES = Listing("packages", Package, key=(Package.id,))


@dataclass(frozen=True)
class Filter:
    """Which packages a list has; what is None does not narrow it."""

    search: str | None = None  # a part of the name

    def conditions(self) -> list[ColumnElement[bool]]:
        """The filter as conditions that must all hold."""
        return [] if self.search is None else [names.contain(self.search, Package.name)]


async def get(db: Database, package_id: str) -> Package:
    """The package.  Raises: NotFound."""
    async with db.read() as session:
        return await _get(session, package_id)


async def get_many(db: Database, package_ids: Sequence[UUID]) -> dict[UUID, Package]:
    """The packages that there are of `package_ids`."""
    async with db.read() as session:
        packages = await session.scalars(select(Package).where(Package.id.in_(package_ids)))
        return {package.id: package for package in packages}


async def compose_files_size(db: Database, package_ids: Sequence[UUID]) -> int:
    """How many characters the Compose files of these packages have together."""
    async with db.read() as session:
        statement = select(func.sum(func.length(Package.compose_file))).where(Package.id.in_(package_ids))
        return await session.scalar(statement) or 0


async def compose_files_of(db: Database, package_ids: Sequence[UUID]) -> dict[UUID, str]:
    """The text of each package's Compose file."""
    async with db.read() as session:
        statement = select(Package.id, Package.compose_file).where(Package.id.in_(package_ids))
        return {row.id: row.compose_file for row in await session.execute(statement)}


async def contents_of(db: Database, files: Sequence[FileKey]) -> dict[FileKey, bytes]:
    """The bytes of the files that there are of `files`."""
    paths: dict[UUID, list[str]] = defaultdict(list)
    for package_id, path in files:
        paths[package_id].append(path)
    contents: dict[FileKey, bytes] = {}
    async with db.read() as session:
        for package_id, wanted in paths.items():
            statement = select(PackageFile.path, PackageFile.data)
            statement = statement.where(PackageFile.package_id == package_id, PackageFile.path.in_(wanted))
            contents |= {(package_id, row.path): row.data for row in await session.execute(statement)}
    return contents


async def files_of(db: Database, package_ids: Sequence[UUID]) -> dict[UUID, list[PackageFile]]:
    """The files of each package, by path, without their bytes."""
    async with db.read() as session:
        statement = select(PackageFile).where(PackageFile.package_id.in_(package_ids)).order_by(PackageFile.path)
        files: dict[UUID, list[PackageFile]] = defaultdict(list)
        for file in await session.scalars(statement):
            files[file.package_id].append(file)
        return files


async def logins_of(db: Database, package_ids: Sequence[UUID]) -> dict[UUID, list[RegistryLogin]]:
    """The logins of each package, by registry."""
    async with db.read() as session:
        of_them = RegistryLogin.package_id.in_(package_ids)
        logins: dict[UUID, list[RegistryLogin]] = defaultdict(list)
        for login in await session.scalars(select(RegistryLogin).where(of_them).order_by(RegistryLogin.address)):
            logins[login.package_id].append(login)
        return logins


async def requirements_of(db: Database, package_ids: Sequence[UUID]) -> dict[UUID, list[Requirement]]:
    """The variables that each package requires."""
    async with db.read() as session:
        statement = select(Package.id, Package.requirements).where(Package.id.in_(package_ids))
        stored = {row.id: row.requirements for row in await session.execute(statement)}
    older = [key for key, requirements in stored.items() if requirements is None]
    required = {
        key: [Requirement.from_json(requirement) for requirement in requirements]
        for key, requirements in stored.items()
        if requirements is not None
    }
    return required | (await _read(db, older) if older else {})


async def _read(db: Database, package_ids: Sequence[UUID]) -> dict[UUID, list[Requirement]]:
    """What packages require that were stored without it, by releases that did not know."""
    required = {}
    for package_id in package_ids:  # one after the other: together they could be gigabytes
        text = (await compose_files_of(db, [package_id])).get(package_id)
        if text is None:
            continue
        files = (await files_of(db, [package_id])).get(package_id, ())
        contents = await contents_of(db, [(package_id, file.path) for file in files])
        of_package = {path: data for (_, path), data in contents.items()}
        reading = await asyncio.to_thread(compose.read, text, of_package)
        required[package_id] = list(reading.requirements)
    return required


async def create(
    db: Database,
    *,
    name: str,
    version: str,
    compose_file: str,
    files: Sequence[NewFile] = (),
    logins: Sequence[NewLogin] = (),
    key: Key | None = None,
) -> Package:
    """A new package, or the one that a request with this key has made.

    Raises: InvalidInput, NameTaken; NotFound where the one of this key was deleted.
    """
    # A megabyte of YAML takes a while to read, and nobody else should wait for it.
    request, decoded, reading = await asyncio.to_thread(
        _check, name, version, compose_file, files=files, logins=logins, key=key
    )
    requirements = [requirement.as_json() for requirement in reading.requirements]
    package = Package(id=uuid7(), name=name, version=version, compose_file=compose_file, requirements=requirements)
    try:
        async with db.write() as session:
            claim = await idempotency.claim(session, db.keyring, request)
            if claim.earlier:
                return await _get(session, claim.earlier[0])
            session.add(package)
            await session.flush()
            session.add_all(
                PackageFile(
                    package_id=package.id,
                    path=file.path,
                    data=file.data,
                    mode=file.mode,
                    only_if_missing=file.only_if_missing,
                )
                for file in decoded
            )
            session.add_all(
                RegistryLogin(
                    package_id=package.id,
                    address=login.registry,
                    username=login.username,
                    ciphertext=db.keyring.encrypt(login.password),
                )
                for login in logins
            )
            claim.made(package.id)
    except IntegrityError as error:
        raise NameTaken(kind="Package", name=f"{name} {version}", argument="name or version") from error
    return package


async def remove(db: Database, package_id: str) -> UUID:
    """Delete a package that no deployment names; gives its id.  Raises: NotFound, InUse."""
    async with db.write() as session:
        # Locked, so that no deployment that names it can be created beside this.
        package = await _get(session, package_id, lock=True)
        await refuse_while_used(session, "Package", package_id, Deployment, Deployment.package_id == package.id)
        await session.execute(delete(Package).where(Package.id == package.id))
    return package.id


async def _get(session: AsyncSession, package_id: str, *, lock: bool = False) -> Package:
    key = ids.parse(package_id)
    package = await session.get(Package, key, with_for_update=lock) if key is not None else None
    if package is None:
        raise NotFound(kind="Package", id=package_id)
    return package


def _check(
    name: str,
    version: str,
    compose_file: str,
    *,
    files: Sequence[NewFile],
    logins: Sequence[NewLogin],
    key: Key | None,
) -> tuple[Request | None, list[DecodedFile], Reading]:
    check = Check()
    given: dict[str, object] = {"name": name, "version": version, "compose_file": compose_file}
    given["files"] = [file.given for file in files]
    if logins:  # without any, a request is the one that it was before there were logins
        given["registry_logins"] = [(login.registry, login.username, login.password) for login in logins]
    request = Request.of(key, check, given)
    check.name("name", name)
    check.name("version", version)
    positions = {file.path: position for position, file in enumerate(files)}
    has_override = any(path in positions for path in OVERRIDE_FILES)
    check.compose_file("compose_file", compose_file, has_override=has_override)
    decoded = decode(check, "files", files)
    reading = compose.read(compose_file, {file.path: file.data for file in decoded})
    for path, problem in islice(compose_rules.problems_of(reading), MAX_PATHS):
        argument = ("files", positions[path]) if path in positions else "compose_file"
        check.add(argument, "COMPOSE", f"{path}: {problem}.")
    check.registry_logins(
        "registry_logins", [(login.registry, login.username, login.password.reveal()) for login in logins]
    )
    check.done()
    return request, decoded, reading
