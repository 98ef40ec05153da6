"""What others name is not deleted, whoever sees them."""

import pytest

from db.database import Database
from db.models import Deployment, Host, Package
from db.session import LABELS
from resolvers.errors import InUse
from resolvers.in_use import refuse_while_used
from tests import factories


async def _refuse(db: Database, package: Package, labels: frozenset[str] | None = None) -> None:
    async with db.read() as session:
        session.info[LABELS] = labels
        where = Deployment.package_id == package.id
        await refuse_while_used(session, "Package", str(package.id), Deployment, where)


async def test_what_nobody_names_is_not_refused(db: Database) -> None:
    await factories.deployment(db)
    await _refuse(db, await factories.package(db))


async def test_those_that_name_it_are_counted_and_the_first_is_told(db: Database) -> None:
    package = await factories.package(db)
    first = await factories.deployment(db, of=package)
    await factories.deployment(db, of=package)
    with pytest.raises(InUse) as refused:
        await _refuse(db, package)
    assert refused.value.extensions == {"count": 2, "deployment_id": str(first.id)}


async def test_of_those_on_other_hosts_neither_number_nor_id_is_told(db: Database) -> None:
    package = await factories.package(db)
    hidden = await factories.deployment(db, of=package)
    with pytest.raises(InUse) as refused:
        await _refuse(db, package, frozenset({"web"}))
    assert refused.value.extensions == {}
    assert str(hidden.id) not in str(refused.value)
    mine = await factories.deployment(db, on=await factories.host(db, ["web"]), of=package)
    with pytest.raises(InUse) as seen:
        await _refuse(db, package, frozenset({"web"}))
    assert seen.value.extensions == {"count": 1, "deployment_id": str(mine.id)}


async def test_a_key_is_in_use_by_hosts(db: Database) -> None:
    key = await factories.ssh_key(db)
    host = await factories.host(db, ssh_key_id=key.id)
    with pytest.raises(InUse, match=f"in use by host '{host.id}'"):
        async with db.read() as session:
            await refuse_while_used(session, "SSH key", str(key.id), Host, Host.ssh_key_id == key.id)
