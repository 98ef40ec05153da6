"""Add workers and, on PostgreSQL, the queue that they share."""

import sqlalchemy as sa
from alembic import op
from procrastinate.schema import SchemaManager

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "workers",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("node", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("max_runs", sa.Integer(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_workers"),
    )
    op.create_index("ix_workers_node", "workers", ["node"])
    bind = op.get_bind()
    if bind.dialect.name == "postgresql":
        # Several statements in one string, which psycopg accepts only without parameters.
        bind.exec_driver_sql(SchemaManager.get_schema(), execution_options={"no_parameters": True})
