"""The database of a server, as its own programs see it."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, create_engine, text

from db.database import sqlite_url
from db.encryption import Keyring
from tests.support.server import Server


@contextmanager
def connected(server: Server) -> Iterator[Connection]:
    """A connection in one transaction, which is committed."""
    url = server.settings.get("DAOS_DATABASE_URL") or sqlite_url(server.data_dir / "daos.db")
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    try:
        with engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()


def stored_key(server: Server) -> str:
    """The one key that the server keeps, as it hands it to ssh."""
    with connected(server) as database:
        ciphertext = database.scalars(text("SELECT ciphertext FROM ssh_keys")).one()
    return Keyring.read(server.data_dir / "secret-key").decrypt(ciphertext).reveal()
