"""Access tokens, on both engines."""

import pytest

from db.database import Database
from db.models import Role, Token
from resolvers import tokens
from resolvers.errors import InvalidInput, NameTaken, NotFound, TokenRevoked, TokenUnknown
from resolvers.tokens import Principal
from tests.support.attacks import LONG, PATHS, TEMPLATES, UNPRINTABLE


async def test_a_token_is_found_by_what_it_is(db: Database) -> None:
    _, token = await tokens.create(db, "ci")
    found = await tokens.find(db, token.reveal())
    assert found.name == "ci"


async def test_only_the_hash_of_a_token_is_kept(db: Database) -> None:
    _, token = await tokens.create(db, "ci")
    [row] = await tokens.list_all(db)
    assert row.sha256 == tokens.digest(token.reveal())
    assert token.reveal() not in str(vars(row))


def test_tokens_are_long_random_and_not_printed() -> None:
    made = {tokens.make().reveal() for _ in range(100)}
    assert len(made) == 100
    assert all(token.startswith("daos_") and len(token) >= 5 + 43 for token in made)
    assert str(tokens.make()) == "********"


async def test_what_is_no_token_is_not_found(db: Database) -> None:
    token = (await tokens.create(db, "ci"))[1].reveal()
    for other in ("", "ci", token[:-1], token + " ", token.upper(), LONG, *TEMPLATES, *PATHS, *UNPRINTABLE):
        with pytest.raises(TokenUnknown):
            await tokens.find(db, other)


async def test_a_token_that_was_revoked_is_useless_but_listed(db: Database) -> None:
    (_, token), (_, other) = await tokens.create(db, "ci"), await tokens.create(db, "other")
    await tokens.revoke(db, "ci")
    with pytest.raises(TokenRevoked, match=r"\AThe access token 'ci' was revoked on "):
        await tokens.find(db, token.reveal())
    assert (await tokens.find(db, other.reveal())).name == "other"
    listed = await tokens.list_all(db)
    assert [(row.name, row.revoked_at is None) for row in listed] == [("ci", False), ("other", True)]
    with pytest.raises(NotFound):
        await tokens.revoke(db, "ci")


async def test_a_name_is_taken_once(db: Database) -> None:
    await tokens.create(db, "ci")
    with pytest.raises(NameTaken, match="Token 'ci'"):
        await tokens.create(db, "ci")


async def test_a_name_keeps_the_rules(db: Database) -> None:
    for name in ("", LONG, *UNPRINTABLE):
        with pytest.raises(InvalidInput):
            await tokens.create(db, name)


RESERVED = (
    "admin|Admin|ADMIN|a d m i n|\uff41dmin|command line|Command  Line|commandline|unknown|daos|oidc:alice|OIDC:alice"
)
RESERVED += "|admin\u034f|admin\ufe0f|admin\u3164|ad\u115fmin|admin\u2800"  # what shows nothing
RESERVED += "|admi\u0301n|\u0430dmin|adm\u0131n|oid\u0441:x|oidc\u2236x"  # what looks alike
RESERVED += "|oidc: alice|oidc : alice|oidc\uff1aalice|git:shop 1a2b3c4"


@pytest.mark.parametrize("name", RESERVED.split("|"))
async def test_a_name_that_the_audit_uses_itself_cannot_be_given(sqlite_db: Database, name: str) -> None:
    with pytest.raises(InvalidInput, match="daos itself uses"):
        await tokens.create(sqlite_db, name)
    assert await tokens.list_all(sqlite_db) == []


@pytest.mark.parametrize("name", ["administrator", "the admin", "oidc", "command line 2", "git"])
async def test_a_name_that_only_resembles_one_can(sqlite_db: Database, name: str) -> None:
    assert (await tokens.create(sqlite_db, name))[0].name == name


async def test_a_token_of_before_with_such_a_name_is_valid_and_has_keys_of_its_own(db: Database) -> None:
    secret = tokens.make()
    async with db.write() as session:
        session.add(Token(name="admin", sha256=tokens.digest(secret.reveal()), role=Role.VIEWER))
    found = await tokens.find(db, secret.reveal())
    assert (found.name, found.role) == ("admin", Role.VIEWER)
    assert found.key != Principal("admin").key
