"""Whether a principal can still see a row: the labels of a host can change while a subscription is open."""

from uuid import UUID

from sqlalchemy import select

from db.database import Database
from db.models import DeletedDeployment, Deployment, Run

Seen = type[Deployment] | type[DeletedDeployment] | type[Run]


async def is_visible(db: Database, entity: Seen, key: UUID) -> bool:
    """Return whether the row is visible in `db`; always if `db` is not limited, also for a row deleted since."""
    if not db.is_limited:
        return True
    async with db.read() as session:
        return await session.scalar(select(entity.id).where(entity.id == key)) is not None
