"""The PostgreSQL of the tests: a database is empty, and gone with its connections afterwards."""

import psycopg
import pytest

from tests.support.postgres import Postgres


def test_a_database_is_empty_and_goes_under_an_open_connection(postgres: Postgres) -> None:
    with postgres.new_database() as url:
        connection = psycopg.connect(url)
        tables = connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone()
        assert tables == (0,)
    with pytest.raises(psycopg.OperationalError):
        connection.execute("SELECT 1")
    connection.close()
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        psycopg.connect(url)
