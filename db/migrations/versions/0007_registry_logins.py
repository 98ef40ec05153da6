"""Add the registry logins of packages."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.create_table(
        "registry_logins",
        sa.Column("package_id", sa.Uuid(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("username", sa.Text(), nullable=False),
        sa.Column("ciphertext", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["package_id"], ["packages.id"], name="fk_registry_logins_package_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("package_id", "address", name="pk_registry_logins"),
    )
