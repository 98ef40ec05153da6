"""Access tokens other than the admin's own, and the principals that they identify."""

import hashlib
import secrets
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from uuid_utils.compat import uuid7

from db.database import Database
from db.encryption import Secret
from db.models import Role, Token, now
from resolvers import ids
from resolvers.errors import NameTaken, NotFound, TokenExpired, TokenRevoked, TokenUnknown
from resolvers.paging import Listing
from resolvers.rules import Check

# What daos itself writes in place of the name of a token: for the admin's own token, the `daos` commands, older rows
# without a known creator, tokens of an issuer, and Git.
RESERVED_NAMES = frozenset({"admin", "commandline", "daos", "unknown"})
RESERVED_PREFIXES = ("oidc:", "git:")
INVISIBLE = frozenset("\u115f\u1160\u17b4\u17b5\u2800")  # printable for Python; U+3164 and U+FFA0 become U+1160
ALIKE = str.maketrans(  # letters of other alphabets that resemble those in reserved names
    "\u0430\u0441\u0435\u0456\u0455\u043a\u043e\u0501\u03b1\u03b9\u03bf\u0131\ua789\u2236\u02d0", "aceiskodaioi:::"
)

TOKENS = Listing("tokens", Token, key=(Token.id,))


@dataclass(frozen=True)
class Principal:
    """The holder of a token: its name, its role, and the labels of the hosts that it can see; None means all hosts.

    `token_id` is None for the admin's own token and for tokens of an issuer, which are not rows.
    """

    name: str
    role: Role = Role.ADMIN
    labels: frozenset[str] | None = None
    token_id: UUID | None = None

    @property
    def key(self) -> str:
        """A unique identifier: a token from before names were reserved may have the name of another principal."""
        return self.name if self.token_id is None else f"token:{self.token_id}"

    def may(self, role: Role) -> bool:
        """Return whether the principal has at least `role`."""
        return self.role.rank >= role.rank


def _is_reserved(name: str) -> bool:
    """Return whether a reader of the audit log could mistake `name` for one that daos itself uses.

    Case, width, blanks, marks, and invisible characters are ignored; the most common similar letters are equal.
    """
    letters = unicodedata.normalize("NFKD", name).casefold().translate(ALIKE)
    folded = "".join(
        letter
        for letter in letters
        if letter not in INVISIBLE and not letter.isspace() and not unicodedata.category(letter).startswith("M")
    )
    return folded in RESERVED_NAMES or folded.startswith(RESERVED_PREFIXES)


def digest(token: str) -> str:
    """Return the hash that is stored of a token."""
    return hashlib.sha256(token.encode(errors="surrogatepass")).hexdigest()


def make() -> Secret:
    """Return a new token with 256 random bits."""
    return Secret(f"daos_{secrets.token_urlsafe(32)}")


async def create(
    db: Database,
    name: str,
    role: Role = Role.ADMIN,
    host_labels: Sequence[str] | None = None,
    expires_at: datetime | None = None,
) -> tuple[Token, Secret]:
    """Create a token; return it with its secret, which cannot be read again.  Raises: InvalidInput, NameTaken."""
    check = Check()
    check.name("name", name)
    if _is_reserved(name):
        check.add("name", "RESERVED", "name must not be one that daos itself uses in the audit log.")
    if host_labels is not None:
        check.labels("host_labels", host_labels)
        if role is Role.ADMIN:
            check.add("host_labels", "ADMIN", "host_labels must not be given for an admin, who can lift them.")
        if not host_labels:
            check.add("host_labels", "EMPTY", "host_labels must have a label; null means all hosts.")
    if expires_at is not None:
        check.moment("expires_at", expires_at)
        if expires_at <= now():
            check.add("expires_at", "PAST", "expires_at must be in the future.")
    check.done()
    secret = make()
    token = Token(
        id=uuid7(),
        name=name,
        sha256=digest(secret.reveal()),
        role=role,
        host_labels=sorted(set(host_labels)) if host_labels is not None else None,
        expires_at=expires_at,
    )
    try:
        async with db.write() as session:
            session.add(token)
    except IntegrityError as error:
        raise NameTaken(kind="Token", name=name) from error
    return token, secret


async def find(db: Database, token: str) -> Principal:
    """Return the principal of the token.  Raises: TokenUnknown, TokenRevoked, TokenExpired."""
    async with db.read() as session:
        # By the hash, so that the duration of the search reveals nothing about any token.
        found = await session.scalar(select(Token).where(Token.sha256 == digest(token)))
    if found is None:
        raise TokenUnknown
    # Only the holder of the secret learns more.
    if found.revoked_at is not None:
        raise TokenRevoked(name=found.name, moment=found.revoked_at)
    if found.expires_at is not None and found.expires_at <= now():
        raise TokenExpired(name=found.name, moment=found.expires_at)
    labels = None if found.host_labels is None else frozenset(found.host_labels)
    return Principal(found.name, found.role, labels, found.id)


async def list_all(db: Database) -> Sequence[Token]:
    """Return all tokens, oldest first, including revoked ones."""
    async with db.read() as session:
        return (await session.scalars(select(Token).order_by(Token.id))).all()


async def revoke(db: Database, name: str) -> None:
    """Revoke the token with this name.  Raises: NotFound, also if it is already revoked."""
    async with db.write() as session:
        token = await session.scalar(select(Token).where(Token.name == name, Token.revoked_at.is_(None)))
        if token is None:
            raise NotFound(kind="Token", id=name)
        await _revoke(session, token.id)


async def revoke_by_id(db: Database, token_id: str) -> Token:
    """Revoke a token and return it; one that is already revoked is left as it is.  Raises: NotFound."""
    key = ids.parse(token_id)
    async with db.write() as session:
        if key is None or await session.get(Token, key) is None:
            raise NotFound(kind="Token", id=token_id)
        await _revoke(session, key)
        return await session.get_one(Token, key, populate_existing=True)


async def _revoke(session: AsyncSession, key: UUID) -> None:
    await session.execute(update(Token).where(Token.id == key, Token.revoked_at.is_(None)).values(revoked_at=now()))
