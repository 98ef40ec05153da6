"""Add deleted deployments, for subscribers to the changes of all deployments."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    op.create_table(
        "deleted_deployments",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("host_id", sa.Uuid(), nullable=False),
        sa.Column("package_id", sa.Uuid(), nullable=False),
        sa.Column("project_name", sa.Text(), nullable=False),
        sa.Column("status", sa.String(length=32), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_deleted_deployments"),
    )
    op.create_index("uq_deleted_deployments_sequence", "deleted_deployments", ["sequence"], unique=True)
    op.create_index("ix_deleted_deployments_at", "deleted_deployments", ["at"])
