"""Add the creator and the trigger of a run, and indexes for lists of runs."""

import re
from uuid import UUID

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"

ID = re.compile(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
BATCH = 500  # rows in memory at a time

INDEXES = (
    ("ix_runs_deployment_id_id", ["deployment_id", "id"]),
    ("ix_runs_reason_id", ["reason", "id"]),
    ("ix_runs_created_by_id", ["created_by", "id"]),
    ("ix_runs_queued_at", ["queued_at"]),
)

_runs = sa.table("runs", sa.column("id", sa.Uuid()), sa.column("created_by"))
_entries = sa.table(
    "audit_entries",
    sa.column("id", sa.Uuid()),
    sa.column("principal"),
    sa.column("mutation"),
    sa.column("object_ids", sa.JSON()),
    sa.column("outcome"),
)


def upgrade() -> None:
    trigger = sa.Column("trigger", sa.String(length=32), nullable=False, server_default="API")
    op.add_column("runs", trigger)
    op.add_column("runs", sa.Column("created_by", sa.Text(), nullable=False, server_default="unknown"))
    _take_from_audit(op.get_bind())
    for name, columns in INDEXES:
        op.create_index(name, "runs", columns)


def _take_from_audit(connection: sa.Connection) -> None:
    """Set the creator of each run for which the audit log has one: an entry lists the runs that it queued."""
    starts = _entries.c.mutation.in_(["runDeployment", "runDeployments"]), _entries.c.outcome == "OK"
    statement = sa.select(_entries.c.id, _entries.c.principal, _entries.c.object_ids).where(*starts)
    last = None
    while True:
        batch = statement.order_by(_entries.c.id).limit(BATCH)
        rows = connection.execute(batch if last is None else batch.where(_entries.c.id > last)).all()
        for _, principal, object_ids in rows:
            queued = [UUID(text) for text in object_ids if _is_id(text)]
            connection.execute(sa.update(_runs).where(_runs.c.id.in_(queued)).values(created_by=principal))
        if len(rows) < BATCH:
            return
        last = rows[-1].id


def _is_id(text: object) -> bool:
    """Return whether a text of an entry is an id; an entry contains the ids of a request unchecked."""
    return isinstance(text, str) and ID.fullmatch(text) is not None
