"""Add indexes for the orders of deployments."""

from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    op.create_index("ix_deployments_updated_at_id", "deployments", ["updated_at", "id"])
    op.create_index("ix_deployments_project_name_id", "deployments", ["project_name", "id"])
