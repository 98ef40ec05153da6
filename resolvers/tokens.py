"""Access tokens besides the admin's, and who somebody is that shows one."""

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

# What daos itself writes where the name of a token would stand: the admin's own token, the `daos` commands, what is not
# known of older rows, tokens of an issuer, and Git.
RESERVED_NAMES = frozenset({"admin", "commandline", "daos", "unknown"})
RESERVED_PREFIXES = ("oidc:", "git:")
INVISIBLE = frozenset("\u115f\u1160\u17b4\u17b5\u2800")  # printable to Python; U+3164 and U+FFA0 become U+1160
ALIKE = str.maketrans(  # letters of other alphabets that look like those in reserved names
    "\u0430\u0441\u0435\u0456\u0455\u043a\u043e\u0501\u03b1\u03b9\u03bf\u0131\ua789\u2236\u02d0", "aceiskodaioi:::"
)

TOKENS = Listing("tokens", Token, key=(Token.id,))


@dataclass(frozen=True)
class Principal:
    """Who asks: the name of a token, what it may do, and on which hosts; `labels` None means on all.

    `token_id` is None for the admin's own token and for those of an issuer, which are no rows.
    """

    name: str
    role: Role = Role.ADMIN
    labels: frozenset[str] | None = None
    token_id: UUID | None = None

    @property
    def key(self) -> str:
        """What no other principal has: names of tokens from before some were reserved may be those of others."""
        return self.name if self.token_id is None else f"token:{self.token_id}"

    def may(self, role: Role) -> bool:
        """Whether the principal may do what needs `role`."""
        return self.role.rank >= role.rank


def _is_reserved(name: str) -> bool:
    """Whether a reader of the audit log could take `name` for one of daos' own.

    Case, width, blanks, marks, and what shows nothing do not count, and the commonest letters that look alike are one.
    """
    letters = unicodedata.normalize("NFKD", name).casefold().translate(ALIKE)
    folded = "".join(
        letter
        for letter in letters
        if letter not in INVISIBLE and not letter.isspace() and not unicodedata.category(letter).startswith("M")
    )
    return folded in RESERVED_NAMES or folded.startswith(RESERVED_PREFIXES)


def digest(token: str) -> str:
    """What is kept of a token."""
    return hashlib.sha256(token.encode(errors="surrogatepass")).hexdigest()


def make() -> Secret:
    """A new token with 256 random bits."""
    return Secret(f"daos_{secrets.token_urlsafe(32)}")


async def create(
    db: Database,
    name: str,
    role: Role = Role.ADMIN,
    host_labels: Sequence[str] | None = None,
    expires_at: datetime | None = None,
) -> tuple[Token, Secret]:
    """A new token; the secret can be shown this once.  Raises: InvalidInput, NameTaken."""
    check = Check()
    check.name("name", name)
    if _is_reserved(name):
        check.add("name", "RESERVED", "name must not be one that daos itself uses in the audit log.")
    if host_labels is not None:
        check.labels("host_labels", host_labels)
        if role is Role.ADMIN:
            check.add("host_labels", "ADMIN", "host_labels must not be given for an admin, who may give itself more.")
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
    """The principal of the token.  Raises: TokenUnknown, TokenRevoked, TokenExpired."""
    async with db.read() as session:
        # By the hash: how long the search takes tells nothing about any token.
        found = await session.scalar(select(Token).where(Token.sha256 == digest(token)))
    if found is None:
        raise TokenUnknown
    # Only the holder of the secret is told more.
    if found.revoked_at is not None:
        raise TokenRevoked(name=found.name, moment=found.revoked_at)
    if found.expires_at is not None and found.expires_at <= now():
        raise TokenExpired(name=found.name, moment=found.expires_at)
    labels = None if found.host_labels is None else frozenset(found.host_labels)
    return Principal(found.name, found.role, labels, found.id)


async def list_all(db: Database) -> Sequence[Token]:
    """All tokens, oldest first, revoked ones too."""
    async with db.read() as session:
        return (await session.scalars(select(Token).order_by(Token.id))).all()


async def revoke(db: Database, name: str) -> None:
    """Make a token useless.  Raises: NotFound."""
    async with db.write() as session:
        token = await session.scalar(select(Token).where(Token.name == name, Token.revoked_at.is_(None)))
        if token is None:
            raise NotFound(kind="Token", id=name)
        await _revoke(session, token.id)


async def revoke_by_id(db: Database, token_id: str) -> Token:
    """Make a token useless; one that is so already stays as it is.  Raises: NotFound."""
    key = ids.parse(token_id)
    async with db.write() as session:
        if key is None or await session.get(Token, key) is None:
            raise NotFound(kind="Token", id=token_id)
        await _revoke(session, key)
        return await session.get_one(Token, key, populate_existing=True)


async def _revoke(session: AsyncSession, key: UUID) -> None:
    await session.execute(update(Token).where(Token.id == key, Token.revoked_at.is_(None)).values(revoked_at=now()))
