"""What a deployment's status says: runs no longer wait for a time"""

from alembic import op

revision = "0009"
down_revision = "0007"


def upgrade() -> None:
    op.drop_column("runs", "not_before")  # runs that waited for their time are due
