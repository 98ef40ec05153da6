"""What a deployment's status says, what is on its host, and which installation of daos put it there"""

import sqlalchemy as sa
from alembic import op
from uuid_utils.compat import uuid7

revision = "0009"
down_revision = "0008"

# A run that was canceled before it began has changed nothing, and says nothing about its deployment.
BEFORE = """
UPDATE deployments SET status_before = CASE WHEN status <> 'RUNNING' THEN status ELSE COALESCE(
    (
        SELECT CASE WHEN runs.status = 'SUCCESS' THEN 'SUCCESS' ELSE 'FAILED' END FROM runs
        WHERE runs.deployment_id = deployments.id AND runs.status IN ('SUCCESS', 'FAILED', 'CANCELED')
            AND (runs.status <> 'CANCELED' OR runs.started_at IS NOT NULL)
        ORDER BY runs.number DESC LIMIT 1
    ), 'PENDING') END
"""
# Of a run that failed it is not known whether it had begun Up.
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


def upgrade() -> None:
    op.drop_column("runs", "not_before")  # runs that waited for their time are due
    status = sa.Column("status_before", sa.String(length=32), nullable=False, server_default="PENDING")
    op.add_column("deployments", status)
    op.add_column("deployments", sa.Column("current_run_id", sa.Uuid(), nullable=True))
    installation = op.create_table(
        "installation",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_installation"),
    )
    op.bulk_insert(installation, [{"id": uuid7()}])  # here, and not at the first start: nodes start at the same time
    op.execute(BEFORE)
    op.execute(CURRENT)
