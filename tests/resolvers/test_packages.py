"""Packages, on both engines."""

import asyncio
from collections.abc import Awaitable, Callable
from uuid import uuid4

import pytest
from sqlalchemy import null, update

from db.broadcast import Broadcast
from db.database import Database
from db.encryption import Secret
from db.models import Package
from resolvers import deployments, packages
from resolvers.errors import InUse, InvalidInput, NameTaken, NotFound, PackageNotFound
from resolvers.files import NewFile
from runner.compose.interpolation import Requirement
from tests import factories
from tests.factories import COMPOSE_FILE
from tests.support.attacks import TEMPLATES, UNKNOWN


async def test_a_package_is_created_as_it_is_given(db: Database) -> None:
    files = [
        NewFile("nginx.conf", content="a\r\nb\x1b[31m\0"),
        NewFile("html/[id] ☃.html", content="😀"),
        NewFile("empty", content=""),
        NewFile("run", base64="AP+A", mode="755"),
        NewFile("state", content="", mode="0600", only_if_missing=True),
    ]
    created = await packages.create(db, name="Web", version="1.0 β", compose_file=COMPOSE_FILE, files=files)
    package = await packages.get(db, str(created.id))
    assert (package.name, package.version) == ("Web", "1.0 β")
    assert await packages.compose_files_of(db, [package.id]) == {package.id: COMPOSE_FILE}
    found = (await packages.files_of(db, [package.id]))[package.id]
    data = await packages.contents_of(db, [(package.id, file.path) for file in found])
    assert all(file.size == len(data[package.id, file.path]) for file in found)
    assert [(file.path, data[package.id, file.path], file.mode, file.only_if_missing) for file in found] == [
        ("empty", b"", 0o644, False),
        ("html/[id] ☃.html", "😀".encode(), 0o644, False),
        ("nginx.conf", b"a\r\nb\x1b[31m\0", 0o644, False),
        ("run", b"\0\xff\x80", 0o755, False),
        ("state", b"", 0o600, True),
    ]


async def test_the_password_of_a_login_is_encrypted(db: Database) -> None:
    logins = [packages.NewLogin("r.example", "me", Secret("hunter2"))]
    created = await packages.create(db, name="web", version="1", compose_file=COMPOSE_FILE, logins=logins)
    [login] = (await packages.logins_of(db, [created.id]))[created.id]
    assert (login.address, login.username) == ("r.example", "me")
    assert "hunter2" not in login.ciphertext
    assert db.keyring.decrypt(login.ciphertext).reveal() == "hunter2"
    await packages.remove(db, str(created.id))
    assert await packages.logins_of(db, [created.id]) == {}


async def test_text_is_kept_as_it_is(db: Database) -> None:
    for text in TEMPLATES:
        compose_file = f"services: {{web: }}\n# {text}\n"
        created = await packages.create(
            db, name=text, version=text, compose_file=compose_file, files=[NewFile("file", content=text)]
        )
        package = await packages.get(db, str(created.id))
        assert (package.name, package.version) == (text, text)
        assert await packages.compose_files_of(db, [package.id]) == {package.id: compose_file}
        [data] = (await packages.contents_of(db, [(package.id, "file")])).values()
        assert data.decode() == text


async def test_all_problems_of_a_package_are_told_at_once(db: Database) -> None:
    files = [NewFile("../../etc/passwd", content=""), NewFile("ok", content="a\ud800b", mode="0999")]
    with pytest.raises(InvalidInput) as refused:
        await packages.create(db, name="", version="\x1b", compose_file="services:", files=files)
    assert [(problem.path, problem.code) for problem in refused.value.problems] == [
        (("name",), "EMPTY"),
        (("version",), "CHARACTER"),
        (("compose_file",), "COMPOSE"),
        (("files", 0, "path"), "PATH"),
        (("files", 1, "content"), "CHARACTER"),
        (("files", 1, "mode"), "MODE"),
    ]


async def test_what_a_package_requires_is_read_once_when_it_is_created(db: Database) -> None:
    files = [NewFile("compose.override.yaml", "x: $B"), NewFile("unused.yaml", "x: $C")]
    created = await packages.create(db, name="web", version="1", compose_file=f"{COMPOSE_FILE}x-a: $A", files=files)
    async with db.write() as session:  # what is stored counts, and the files are not read again
        await session.execute(update(Package).values(compose_file="x: $OTHER"))
    assert await packages.requirements_of(db, [created.id]) == {created.id: [Requirement("A"), Requirement("B")]}


async def test_what_an_older_package_requires_is_read_when_it_is_asked_for(db: Database) -> None:
    older = await factories.package(db, compose_file=f"{COMPOSE_FILE}x-a: $A", files={"compose.override.yaml": "x: $B"})
    async with db.write() as session:
        await session.execute(update(Package).values(requirements=null()))
    newer = await packages.create(db, name="web", version="1", compose_file=COMPOSE_FILE)
    assert await packages.requirements_of(db, [older.id, newer.id, uuid4()]) == {
        older.id: [Requirement("A"), Requirement("B")],
        newer.id: [],
    }


async def test_an_override_file_can_bring_the_services(db: Database) -> None:
    with pytest.raises(InvalidInput, match="must have services"):
        await packages.create(
            db, name="web", version="1", compose_file="name: x", files=[NewFile("other.yaml", COMPOSE_FILE)]
        )
    files = [NewFile("docker-compose.override.yml", COMPOSE_FILE)]
    await packages.create(db, name="web", version="1", compose_file="name: x", files=files)


async def test_paths_into_the_directories_of_daos_are_refused_where_they_are(db: Database) -> None:
    base = "services: {web: {image: 'demo:1', env_file: [../../b.env, ../c.env]}}"
    files = [NewFile("other", ""), NewFile("sub/base.yaml", base)]
    compose_file = "include: [sub/base.yaml, ../a.yaml]"
    with pytest.raises(InvalidInput) as refused:
        await packages.create(db, name="web", version="1", compose_file=compose_file, files=files)
    assert [(problem.path, problem.code) for problem in refused.value.problems] == [
        (("files", 1), "COMPOSE"),
        (("compose_file",), "COMPOSE"),
    ]
    assert refused.value.problems[1].message == (
        "compose.yaml: '../a.yaml' at include leads out of the project's directory, into the directories of daos on "
        "the host; put the file into the package, and name it by its path inside the project."
    )
    many = "services: {web: {env_file: [" + ",".join(f"../{number}" for number in range(1000)) + "]}}"
    with pytest.raises(InvalidInput, match="The input breaks 20 rules"):
        await packages.create(db, name="web", version="1", compose_file=many)


async def test_a_name_is_taken_once_for_each_version(db: Database) -> None:
    await factories.package(db, name="web", version="1")
    with pytest.raises(NameTaken, match=r"\APackage 'web 1' exists already; choose another name or version\.\Z"):
        await packages.create(
            db, name="web", version="1", compose_file=COMPOSE_FILE, files=[NewFile("file", content="")]
        )
    await packages.create(db, name="web", version="2", compose_file=COMPOSE_FILE)


async def test_a_large_package_is_kept_whole(db: Database) -> None:
    compose_file = COMPOSE_FILE + "#" * (1024 * 1024 - len(COMPOSE_FILE))
    files = [NewFile(f"{number}", content="x" * (1024 * 1024)) for number in range(4)]
    created = await packages.create(db, name="large", version="1", compose_file=compose_file, files=files)
    assert await packages.compose_files_of(db, [created.id]) == {created.id: compose_file}
    assert await packages.compose_files_size(db, [created.id, uuid4()]) == len(compose_file)
    found = await packages.contents_of(db, [(created.id, file.path) for file in files])
    assert {path: data.decode() for (_, path), data in found.items()} == {file.path: file.content for file in files}


@pytest.mark.parametrize("act", [packages.get, packages.remove])
async def test_a_package_that_is_not_there_is_not_found(
    db: Database, act: Callable[[Database, str], Awaitable[object]]
) -> None:
    for package_id in UNKNOWN:
        with pytest.raises(NotFound):
            await act(db, package_id)


async def test_many_packages_and_their_files_are_read_by_their_ids(db: Database) -> None:
    one, two = await factories.package(db, files={"b": "1", "a": "2"}), await factories.package(db)
    keys = [one.id, two.id, uuid4()]
    assert set(await packages.get_many(db, keys)) == {one.id, two.id}
    files = await packages.files_of(db, keys)
    assert {key: [file.path for file in found] for key, found in files.items()} == {one.id: ["a", "b"]}


async def test_a_package_is_deleted_with_its_files(db: Database) -> None:
    package = await factories.package(db, files={"a": ""})
    assert await packages.remove(db, str(package.id)) == package.id
    assert await packages.get_many(db, [package.id]) == {}
    assert await packages.files_of(db, [package.id]) == {}


async def test_a_package_in_use_is_not_deleted(db: Database) -> None:
    package = await factories.package(db)
    await factories.deployment(db, of=package)
    with pytest.raises(InUse, match="Package"):
        await packages.remove(db, str(package.id))


async def test_a_package_is_deleted_or_deployed_but_not_both(db: Database, broadcast: Broadcast) -> None:
    host = await factories.host(db)

    async def create(package: Package) -> bool:
        try:
            await deployments.create(db, broadcast, host_id=str(host.id), package_id=str(package.id))
        except PackageNotFound:
            return False
        return True

    async def remove(package: Package) -> bool:
        try:
            await packages.remove(db, str(package.id))
        except InUse:
            return False
        return True

    for _ in range(5):
        package = await factories.package(db)
        assert sum(await asyncio.gather(create(package), remove(package))) == 1
