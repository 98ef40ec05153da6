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
    """The credentials with which a new package's images are pulled from one registry."""

    registry: str
    username: str
    password: Secret


FileKey = tuple[UUID, str]  # a package's id, and a path in it

MAX_PATHS = 20  # invalid references in Compose files that one error reports

PACKAGES = Listing("packages", Package, key=(Package.id,))


@dataclass(frozen=True)
class Filter:
    """Which packages a list contains; a condition that is None is not applied."""

    search: str | None = None  # a part of the name

    def conditions(self) -> list[ColumnElement[bool]]:
        """Return the conditions of the filter, all of which must hold."""
        return [] if self.search is None else [names.contain(self.search, Package.name)]


async def get(db: Database, package_id: str) -> Package:
    """Return the package.  Raises: NotFound."""
    async with db.read() as session:
        return await _get(session, package_id)


async def get_many(db: Database, package_ids: Sequence[UUID]) -> dict[UUID, Package]:
    """Return the existing packages among `package_ids`, by id."""
    async with db.read() as session:
        packages = await session.scalars(select(Package).where(Package.id.in_(package_ids)))
        return {package.id: package for package in packages}


async def compose_files_size(db: Database, package_ids: Sequence[UUID]) -> int:
    """Return the total number of characters in the Compose files of these packages."""
    async with db.read() as session:
        statement = select(func.sum(func.length(Package.compose_file))).where(Package.id.in_(package_ids))
        return await session.scalar(statement) or 0


async def compose_files_of(db: Database, package_ids: Sequence[UUID]) -> dict[UUID, str]:
    """Return the text of each package's Compose file."""
    async with db.read() as session:
        statement = select(Package.id, Package.compose_file).where(Package.id.in_(package_ids))
        return {row.id: row.compose_file for row in await session.execute(statement)}


async def contents_of(db: Database, files: Sequence[FileKey]) -> dict[FileKey, bytes]:
    """Return the bytes of the existing files among `files`."""
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
    """Return the files of each package, ordered by path, without their bytes."""
    async with db.read() as session:
        statement = select(PackageFile).where(PackageFile.package_id.in_(package_ids)).order_by(PackageFile.path)
        files: dict[UUID, list[PackageFile]] = defaultdict(list)
        for file in await session.scalars(statement):
            files[file.package_id].append(file)
        return files


async def logins_of(db: Database, package_ids: Sequence[UUID]) -> dict[UUID, list[RegistryLogin]]:
    """Return the logins of each package, ordered by registry."""
    async with db.read() as session:
        of_packages = RegistryLogin.package_id.in_(package_ids)
        logins: dict[UUID, list[RegistryLogin]] = defaultdict(list)
        for login in await session.scalars(select(RegistryLogin).where(of_packages).order_by(RegistryLogin.address)):
            logins[login.package_id].append(login)
        return logins


async def requirements_of(db: Database, package_ids: Sequence[UUID]) -> dict[UUID, list[Requirement]]:
    """Return the variables that each package requires."""
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
    """Return the variables that packages of earlier releases require, which did not store them."""
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
    """Create a package and return it, or return the one that an earlier request with `key` created.

    Raises: InvalidInput, NameTaken; NotFound if the earlier package was deleted.
    """
    # Longer than 40 lines: one transaction, and each of its errors in its place.
    # Parsing a megabyte of YAML takes a while, and must not block the event loop.
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
    """Delete a package that no deployment uses, and return its id.  Raises: NotFound, InUse."""
    async with db.write() as session:
        # Locked, so that no deployment of it can be created at the same time.
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
    if logins:  # without any, the request equals one to a release without logins
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
