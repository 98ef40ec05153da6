"""Authenticates requests: Bearer tokens, and the admin token that the first start creates."""

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
FRESH = 1.0  # seconds for which a valid token is not checked again
MOST_SEEN = 10_000  # tokens
DOTS_OF_A_JWT = 2


def admin_token(path: Path) -> Secret:
    """Return the token in the file at `path`, created if missing.  Raises: OSError, ValueError if it is malformed."""
    if not path.exists():
        with suppress(FileExistsError):  # another process was faster, and its token is used
            write_private(path, tokens.make().reveal() + "\n")
    words = path.read_text(encoding="ascii").split()
    if len(words) != 1:
        raise ValueError("it must contain exactly one word")
    return Secret(words[0])


class Authenticator:
    """Finds the principal of a token: the admin, an issuer's, or one whose hash is in the database."""

    def __init__(self, db: Database, admin: Secret, issuer: Issuer | None = None) -> None:
        self._db = db
        self._issuer = issuer
        self._admin = tokens.digest(admin.reveal())
        self._seen: dict[str, float] = {}  # when tokens were last found valid, by their hash

    async def principal(self, authorization: str | None) -> Principal:
        """Return the principal for the value of an Authorization header.  Raises: Unauthenticated."""
        scheme, _, token = (authorization or "").strip().partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token or not token.isascii():
            raise Unauthenticated
        if hmac.compare_digest(tokens.digest(token), self._admin):
            return Principal(ADMIN)
        if self._issuer is not None and token.count(".") == DOTS_OF_A_JWT:  # daos' own tokens have no dots
            return await self._issuer.principal(token)
        return await tokens.find(self._db, token)

    async def recheck(self, authorization: str | None) -> None:
        """Check that a token is still valid; one that was checked in the last second is not checked again.

        If the database is unavailable, wait for it: meanwhile nothing is sent to the client, and it is not
        disconnected.  Raises: Unauthenticated.
        """
        key, moment = tokens.digest(authorization or ""), time.monotonic()
        if moment - self._seen.get(key, -FRESH) < FRESH:
            return
        if len(self._seen) > MOST_SEEN:
            self._seen.clear()
        self._seen[key] = moment  # before the check: many subscribers receive an event at once, and one check suffices
        try:
            await patiently(partial(self.principal, authorization), "a token cannot be read")
        except Unauthenticated:
            del self._seen[key]
            raise
