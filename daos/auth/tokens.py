"""Who is asking: Bearer tokens, and the admin's token that the first start makes."""

import hmac
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

from daos.auth.oidc import Issuer
from db.database import Database
from db.encryption import Secret, write_private
from db.patience import patiently
from resolvers import tokens
from resolvers.errors import Unauthenticated
from resolvers.tokens import Principal

ADMIN = "admin"
FRESH = 1.0  # seconds
MOST_SEEN = 10_000
DOTS_OF_A_JWT = 2


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

    def __init__(self, db: Database, admin: Secret, issuer: Issuer | None = None) -> None:
        self._db = db
        self._issuer = issuer
        self._admin = tokens.digest(admin.reveal())
        self._seen: dict[str, float] = {}  # when tokens were last found valid, by their hash

    async def principal(self, authorization: str | None) -> Principal:
        """Whose token is in an Authorization header's value.  Raises: Unauthenticated."""
        scheme, _, token = (authorization or "").strip().partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token or not token.isascii():
            raise Unauthenticated
        if hmac.compare_digest(tokens.digest(token), self._admin):
            return Principal(ADMIN)
        if self._issuer is not None and token.count(".") == DOTS_OF_A_JWT:  # our own have none
            return await self._issuer.principal(token)
        return await tokens.find(self._db, token)

    async def recheck(self, authorization: str | None) -> None:
        """See that a token which was valid is so still; one that was seen in the last second is.

        A database that is away is waited for: nobody is told anything meanwhile, and nobody is sent away.
        Raises: Unauthenticated.
        """
        key, moment = tokens.digest(authorization or ""), time.monotonic()
        if moment - self._seen.get(key, -FRESH) < FRESH:
            return
        if len(self._seen) > MOST_SEEN:
            self._seen.clear()
        self._seen[key] = moment  # before it is known: many subscribers get an event at once, and one looks for all
        try:
            await patiently(partial(self.principal, authorization), "a token cannot be read")
        except Unauthenticated:
            del self._seen[key]
            raise
