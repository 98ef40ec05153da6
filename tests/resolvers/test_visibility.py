"""What a principal sees now."""

from uuid import UUID

import pytest
from sqlalchemy import delete

from db.database import Database
from db.models import Deployment, HostLabel, Run
from resolvers.visibility import Seen, is_visible
from tests import factories


@pytest.mark.parametrize("entity", [Deployment, Run])
async def test_a_row_is_visible_as_long_as_its_host_has_the_label(db: Database, entity: Seen) -> None:
    host = await factories.host(db, labels=["ours"])
    run = await factories.run(db, await factories.deployment(db, on=host))
    key: UUID = run.id if entity is Run else run.deployment_id
    ours, others = db.limited_to(frozenset({"ours"})), db.limited_to(frozenset({"theirs"}))
    assert (await is_visible(ours, entity, key), await is_visible(others, entity, key)) == (True, False)
    async with db.write() as session:
        await session.execute(delete(HostLabel))
    assert (await is_visible(ours, entity, key), await is_visible(db, entity, key)) == (False, True)
