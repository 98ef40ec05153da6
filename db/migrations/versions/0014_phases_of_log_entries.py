"""Replace the label of a log entry, which was shown as its task, with its phase."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"

PHASES = {  # by the labels that were stored; Settle is an earlier name of Recover
    "Prepare": "PREPARE",
    "Build": "BUILD",
    "Pull": "PULL",
    "Up": "UP",
    "Verify": "VERIFY",
    "Down": "DOWN",
    "Halt": "HALT",
    "Settle": "RECOVER",
    "Recover": "RECOVER",
}

_entries = sa.table("log_entries", sa.column("task", sa.Text()), sa.column("phase", sa.String(length=32)))


def upgrade() -> None:
    op.add_column("log_entries", sa.Column("phase", sa.String(length=32), nullable=True))
    phase = sa.case(PHASES, value=_entries.c.task)  # anything else becomes NULL
    op.execute(sa.update(_entries).where(_entries.c.task.is_not(None)).values(phase=phase))
    op.drop_column("log_entries", "task")
