"""Refusals to delete objects in use.  They count the users that the principal can see and reveal nothing of others."""

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from db.models import Deployment, Host
from db.session import UNLIMITED
from resolvers.errors import InUse

NOUNS = {Deployment: "deployment", Host: "host"}


async def refuse_while_used(
    session: AsyncSession, kind: str, object_id: str, by: type[Deployment] | type[Host], where: ColumnElement[bool]
) -> None:
    """Raise InUse if rows of `by` match `where`, also if they are on hosts that the principal cannot see."""
    count = await session.scalar(select(func.count(by.id)).where(where)) or 0
    if count:
        first = await session.scalar(select(by.id).where(where).order_by(by.id).limit(1))
        raise InUse(kind=kind, id=object_id, noun=NOUNS[by], count=count, first=first)
    if await session.scalar(select(by.id).where(where).limit(1).execution_options(**UNLIMITED)) is not None:
        raise InUse(kind=kind, id=object_id, noun=NOUNS[by])
