"""The schema and the server that tests of single packages use too."""

from tests.daos.conftest import served
from tests.schema.conftest import api, executable_schema

__all__ = ["api", "executable_schema", "served"]
