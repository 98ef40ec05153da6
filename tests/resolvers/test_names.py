"""What is found by its name, or by a part of it, on both engines."""

import pytest
from sqlalchemy import select

from db.database import Database
from db.models import Host
from resolvers import names
from resolvers.errors import InvalidInput
from tests import factories
from tests.support.attacks import LONG, TEMPLATES, UNPRINTABLE, short


async def _containing(db: Database, part: str) -> set[str]:
    async with db.read() as session:
        return set(await session.scalars(select(Host.name).where(names.contain(part, Host.name, Host.address))))


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ("web", {"Web-1", "old_web"}),
        ("WEB", {"Web-1", "old_web"}),
        ("eb-", {"Web-1"}),
        ("_", {"old_web"}),
        ("%", {"100%"}),
        ("0%", {"100%"}),
        ("/", {"a/b"}),
        ("\\", {"a\\b"}),
        ("EXAMPLE.ORG", {"a/b"}),
        ("nothing", set()),
        ("", {"Web-1", "old_web", "100%", "a/b", "a\\b"}),
    ],
)
async def test_a_part_of_a_name_is_found_whatever_its_case(db: Database, part: str, expected: set[str]) -> None:
    for name in ("Web-1", "old_web", "100%", "a\\b"):
        await factories.host(db, name=name, address="host")
    await factories.host(db, name="a/b", address="db.example.org")
    assert await _containing(db, part) == expected


async def test_other_letters_than_those_of_ascii_have_a_case_too(db: Database) -> None:
    await factories.host(db, name="Größe-ÄRGER-Straße")
    for part in ("größe", "ärger", "ÄRGER", "sTRAßE"):
        assert len(await _containing(db, part)) == 1, part
    assert await _containing(db, "arger") == set()


@pytest.mark.parametrize("text", [*UNPRINTABLE, *TEMPLATES, LONG], ids=short)
async def test_text_that_no_name_has_finds_nothing(db: Database, text: str) -> None:
    await factories.host(db)
    assert await _containing(db, text) == set()
    async with db.read() as session:
        assert await session.scalar(select(Host).where(names.equals(Host.name, text))) is None


async def test_a_whole_name_is_found_exactly(db: Database) -> None:
    host = await factories.host(db, name="Web")
    async with db.read() as session:
        for name, expected in (("Web", host.id), ("web", None), ("We", None), ("We_", None)):
            assert await session.scalar(select(Host.id).where(names.equals(Host.name, name))) == expected


async def test_one_of_many_names_is_found(db: Database) -> None:
    host = await factories.host(db, name="Web")
    async with db.read() as session:
        for texts, expected in (
            ({"Web", *UNPRINTABLE}, host.id),
            ({"web"}, None),
            (set(UNPRINTABLE), None),
            ((), None),
        ):
            assert await session.scalar(select(Host.id).where(names.is_one_of(Host.name, texts))) == expected


def test_the_number_of_names_in_a_filter_is_limited() -> None:
    names.check_choices("labels_any", None)
    names.check_choices("labels_any", {str(number) for number in range(100)})
    with pytest.raises(InvalidInput, match="labels_any must have at most 100 entries"):
        names.check_choices("labels_any", {str(number) for number in range(101)})
