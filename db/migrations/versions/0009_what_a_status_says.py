"""Add the status before a run, a deployment's current run, and the installation; convert services to containers."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from uuid_utils.compat import uuid7

revision = "0009"
down_revision = "0008"

# Runs that were canceled before they began are ignored: they changed nothing.
BEFORE = """
UPDATE deployments SET status_before = CASE WHEN status <> 'RUNNING' THEN status ELSE COALESCE(
    (
        SELECT CASE WHEN runs.status = 'SUCCESS' THEN 'SUCCESS' ELSE 'FAILED' END FROM runs
        WHERE runs.deployment_id = deployments.id AND runs.status IN ('SUCCESS', 'FAILED', 'CANCELED')
            AND (runs.status <> 'CANCELED' OR runs.started_at IS NOT NULL)
        ORDER BY runs.number DESC LIMIT 1
    ), 'PENDING') END
"""
# Only successful runs: for a failed run it is unknown whether it had begun Up.
CURRENT = """
UPDATE deployments SET current_run_id = (
    SELECT runs.id FROM runs
    WHERE runs.deployment_id = deployments.id AND runs.action = 'UP' AND runs.status = 'SUCCESS' AND NOT EXISTS (
        SELECT 1 FROM runs AS downs
        WHERE downs.deployment_id = deployments.id AND downs.action = 'DOWN' AND downs.status = 'SUCCESS'
            AND downs.number > runs.number
    )
    ORDER BY runs.number DESC LIMIT 1
)
"""


BATCH = 500  # rows in memory at a time

_runs = sa.table("runs", sa.column("id", sa.Uuid()), sa.column("containers", sa.JSON()))


def upgrade() -> None:
    op.execute("ALTER TABLE runs RENAME COLUMN services TO containers")
    op.add_column("runs", sa.Column("warnings", sa.JSON(), nullable=False, server_default="[]"))
    _convert(op.get_bind())
    op.drop_column("runs", "not_before")  # delayed runs become due
    status = sa.Column("status_before", sa.String(length=32), nullable=False, server_default="PENDING")
    op.add_column("deployments", status)
    op.add_column("deployments", sa.Column("current_run_id", sa.Uuid(), nullable=True))
    installation = op.create_table(
        "installation",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_installation"),
    )
    op.bulk_insert(installation, [{"id": uuid7()}])  # not at the first start: nodes can start at once
    op.execute(BEFORE)
    op.execute(CURRENT)


def _convert(connection: sa.Connection) -> None:
    """Convert services to containers: daos stored one object for each container, without the container's own name."""
    last = None
    while True:
        batch = sa.select(_runs).order_by(_runs.c.id).limit(BATCH)
        rows = connection.execute(batch if last is None else batch.where(_runs.c.id > last)).all()
        for run_id, services in rows:
            if services:
                containers = [_container(service) for service in services if isinstance(service, dict)]
                connection.execute(sa.update(_runs).where(_runs.c.id == run_id).values(containers=containers))
        if len(rows) < BATCH:
            return
        last = rows[-1].id


def _container(service: dict[str, Any]) -> dict[str, Any]:
    name = service.get("name")
    image = service.get("image") or ""
    return {**service, "service": name, "image": image, "restarts": 0, "startedAt": None, "ports": []}
