"""Add events of runs."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"

# One event for each existing run: a subscription to a run starts with its last event.
FIRST = """
INSERT INTO run_events (run_id, sequence, at)
SELECT id, 1, COALESCE(finished_at, started_at, queued_at) FROM runs
"""


def upgrade() -> None:
    op.create_table(
        "run_events",
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_run_events_run_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "sequence", name="pk_run_events"),
    )
    op.execute(FIRST)
