"""The API, without HTTP."""

import pytest

import schema
from db.broadcast import Broadcast
from db.database import Database
from resolvers.tokens import Principal
from schema.context import Context
from schema.pace import Pace
from tests.support.api import Api
from tests.support.recording_engine import RecordingEngine


@pytest.fixture(scope="session")
def executable_schema() -> schema.Schema:
    """One that does not serve others in between: on a busy machine loaders would have less to collect at once."""
    return schema.make(pace=Pace(3600))


@pytest.fixture
def api(executable_schema: schema.Schema, db: Database, broadcast: Broadcast, engine: RecordingEngine) -> Api:
    """The API over each of the two databases, and an engine that plays nothing."""
    return Api(executable_schema, Context(db, broadcast, engine, Principal("test")))
