"""Add the variables that packages require."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.add_column("packages", sa.Column("requirements", sa.JSON(), nullable=True))
