"""The audit log: who requested which mutation, and the outcome.  Entries are never changed; old ones are deleted."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from db.database import Database
from db.models import AuditEntry, now
from db.session import MADE
from resolvers.paging import Listing

AUDIT = Listing("audit", AuditEntry, key=(AuditEntry.id,))

OK = "OK"
RETENTION = timedelta(days=365)
TIDY_SIZE = 100  # old entries that are deleted with each new one, at most
MOST_IDS = 200  # in one entry
BATCH_SIZE = 1000  # entries read per statement for an export
COMMAND_LINE = "command line"


@dataclass
class Deed:
    """A requested mutation, to be written to the audit log."""

    principal: str
    token_id: UUID | None  # None: the admin's own token, one of an issuer, or the command line
    address: str | None
    mutation: str
    named: Sequence[str]  # ids in the mutation's input
    retention: timedelta = RETENTION
    is_written: bool = field(default=False, init=False)

    async def witness(self, session: AsyncSession) -> None:
        """Add the entry of the successful mutation, in the mutation's own transaction."""
        if not self.is_written:
            await session.flush()
            made = [str(key) for key in session.info.get(MADE, [])]
            self._add(session, [*self.named, *made], OK)
            oldest = select(AuditEntry.id).where(AuditEntry.at < now() - self.retention).order_by(AuditEntry.at)
            expired = oldest.limit(TIDY_SIZE).scalar_subquery()
            await session.execute(delete(AuditEntry).where(AuditEntry.id.in_(expired)))

    async def done(self, db: Database) -> None:
        """Write the entry of a mutation that succeeded without a transaction of its own."""
        async with db.write() as session:
            await self.witness(session)

    async def failed(self, db: Database, code: str) -> None:
        """Write the entry of a mutation that failed with this error code."""
        async with db.write() as session:
            self._add(session, self.named, code)

    def _add(self, session: AsyncSession, object_ids: Sequence[str], outcome: str) -> None:
        unique = list(dict.fromkeys(object_ids))[:MOST_IDS]
        session.add(
            AuditEntry(
                principal=self.principal,
                token_id=self.token_id,
                address=self.address,
                mutation=self.mutation,
                object_ids=unique,
                outcome=outcome,
            )
        )
        self.is_written = True


async def export(db: Database, since: datetime | None = None) -> AsyncIterator[dict[str, Any]]:
    """Yield all entries since a time, oldest first, as dictionaries that can be written as JSON."""
    position: UUID | None = None
    while True:
        statement = select(AuditEntry).order_by(AuditEntry.id).limit(BATCH_SIZE)
        if position is not None:
            statement = statement.where(AuditEntry.id > position)
        if since is not None:
            statement = statement.where(AuditEntry.at >= since)
        async with db.read() as session:
            entries = (await session.scalars(statement)).all()
        for entry in entries:
            position = entry.id
            yield {
                "id": str(entry.id),
                "at": entry.at.isoformat().replace("+00:00", "Z"),
                "principal": entry.principal,
                "tokenId": None if entry.token_id is None else str(entry.token_id),
                "address": entry.address,
                "mutation": entry.mutation,
                "objectIds": entry.object_ids,
                "outcome": entry.outcome,
            }
        if len(entries) < BATCH_SIZE:
            return
