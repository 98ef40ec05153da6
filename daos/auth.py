"""Who is asking: Bearer tokens, and the admin's token that the first start makes."""

import hmac
from contextlib import suppress
from pathlib import Path

from db.encryption import Secret, write_private
from db.engine import Database
from resolvers import tokens
from resolvers.errors import Unauthenticated

ADMIN = "admin"


def admin_token(path: Path) -> Secret:
    """The token in the file at `path`, made where there is none.  Raises: OSError, ValueError where it holds none."""
    if not path.exists():
        with suppress(FileExistsError):  # another process was quicker, and its token counts
            write_private(path, tokens.make().reveal() + "\n")
    words = path.read_text(encoding="ascii").split()
    if len(words) != 1:
        raise ValueError("it must hold one word")
    return Secret(words[0])


class Authenticator:
    """Knows tokens by what is kept of them."""

    def __init__(self, db: Database, admin: Secret) -> None:
        self._db = db
        self._admin = tokens.digest(admin.reveal())

    async def principal(self, authorization: str | None) -> str:
        """The name of the token in an Authorization header's value.  Raises: Unauthenticated."""
        scheme, _, token = (authorization or "").strip().partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token or not token.isascii():
            raise Unauthenticated
        if hmac.compare_digest(tokens.digest(token), self._admin):
            return ADMIN
        found = await tokens.find(self._db, token)
        if found is None:
            raise Unauthenticated
        return found.name
