"""The phase of a log entry, in place of the label that was shown as its task"""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"

PHASES = {  # by the labels that were written; Settle is what Recover was called before
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
