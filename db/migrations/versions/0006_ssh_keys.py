"""Add SSH keys for logging in to hosts."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.create_table(
        "ssh_keys",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("public_key", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("ciphertext", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_ssh_keys"),
        sa.UniqueConstraint("name", name="uq_ssh_keys_name"),
    )
    with op.batch_alter_table("hosts") as hosts:
        hosts.add_column(sa.Column("ssh_key_id", sa.Uuid(), nullable=True))
        hosts.create_foreign_key("fk_hosts_ssh_key_id", "ssh_keys", ["ssh_key_id"], ["id"], ondelete="RESTRICT")
