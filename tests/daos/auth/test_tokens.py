"""Who is asking."""

from pathlib import Path

import pytest

from daos.auth.tokens import Authenticator, admin_token
from db.database import Database
from db.encryption import Secret
from resolvers import tokens
from resolvers.errors import Unauthenticated
from resolvers.tokens import Principal


async def test_a_token_has_a_name_until_it_is_revoked(db: Database) -> None:
    authenticator = Authenticator(db, Secret("admin's"))
    row, secret = await tokens.create(db, "ci")
    token = secret.reveal()
    assert await authenticator.principal(f"Bearer {token}") == Principal("ci", token_id=row.id)
    assert await authenticator.principal("bearer  admin's ") == Principal("admin")
    await tokens.revoke(db, "ci")
    with pytest.raises(Unauthenticated):
        await authenticator.principal(f"Bearer {token}")


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", "Bearer ", "admin", "Basic admin", "Bearer ädmin", "Bearer \ud800", "Beareradmin"],
)
async def test_what_is_no_token_is_refused(sqlite_db: Database, authorization: str | None) -> None:
    with pytest.raises(Unauthenticated):
        await Authenticator(sqlite_db, Secret("admin")).principal(authorization)


def test_the_admins_token_is_made_once_and_is_private(tmp_path: Path) -> None:
    path = tmp_path / "admin-token"
    token = admin_token(path).reveal()
    assert admin_token(path).reveal() == token
    assert path.stat().st_mode & 0o777 == 0o600
    assert len(token) > 40
