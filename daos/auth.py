"""Who is asking: Bearer tokens, and the admin's token that the first start makes."""

import hmac
from pathlib import Path

from db.encryption import Secret, write_private
from db.engine import Database
from resolvers import tokens
from resolvers.errors import Unauthenticated

ADMIN = "admin"


def admin_token(path: Path) -> Secret:
    """The token in the file at `path`, made where there is none.  Raises: OSError."""
    try:
        return Secret(path.read_text().strip())
    except FileNotFoundError:
        token = tokens.make()
        write_private(path, token.reveal() + "\n")
        return token


class Authenticator:
    """Knows tokens by what is kept of them."""

    def __init__(self, db: Database, admin: Secret) -> None:
        self._db = db
        self._admin = tokens.digest(admin.reveal())

    async def principal(self, authorization: str | None) -> str:
        """The name of the token in an Authorization header's value.  Raises: Unauthenticated."""
        scheme, _, token = (authorization or "").strip().partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            raise Unauthenticated
        if hmac.compare_digest(tokens.digest(token), self._admin):
            return ADMIN
        found = await tokens.find(self._db, token)
        if found is None:
            raise Unauthenticated
        return found.name
