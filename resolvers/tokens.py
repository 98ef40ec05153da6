"""Access tokens besides the admin's."""

import hashlib
import secrets
from collections.abc import Sequence

from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError

from db.encryption import Secret
from db.engine import Database
from db.models import Token, now
from resolvers.errors import NameTaken, NotFound
from resolvers.rules import Check


def digest(token: str) -> str:
    """What is kept of a token."""
    return hashlib.sha256(token.encode(errors="surrogatepass")).hexdigest()


def make() -> Secret:
    """A new token with 256 random bits."""
    return Secret(f"daos_{secrets.token_urlsafe(32)}")


async def create(db: Database, name: str) -> Secret:
    """A new token; it can be shown this once.  Raises: InvalidInput, NameTaken."""
    check = Check()
    check.name("name", name)
    check.done()
    token = make()
    try:
        async with db.write() as session:
            session.add(Token(name=name, sha256=digest(token.reveal())))
    except IntegrityError as error:
        raise NameTaken(kind="Token", name=name) from error
    return token


async def find(db: Database, token: str) -> Token | None:
    """The token's row; None where there is none, or it was revoked."""
    async with db.read() as session:
        # By the hash: how long the search takes tells nothing about any token.
        statement = select(Token).where(Token.sha256 == digest(token), Token.revoked_at.is_(None))
        return await session.scalar(statement)


async def list_all(db: Database) -> Sequence[Token]:
    """All tokens, oldest first, revoked ones too."""
    async with db.read() as session:
        return (await session.scalars(select(Token).order_by(Token.id))).all()


async def revoke(db: Database, name: str) -> None:
    """Make a token useless.  Raises: NotFound."""
    async with db.write() as session:
        statement = update(Token).where(Token.name == name, Token.revoked_at.is_(None)).values(revoked_at=now())
        if (await session.execute(statement.returning(Token.id))).scalar_one_or_none() is None:
            raise NotFound(kind="Token", id=name)
