"""Add roles, host labels, and expiry of tokens, labels of hosts, and the audit log."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

FIXED = "what the audit has written is not changed"
SQLITE = f"CREATE TRIGGER audit_entries_fixed BEFORE UPDATE ON audit_entries BEGIN SELECT RAISE(ABORT, '{FIXED}'); END"
POSTGRESQL = [
    f"""
    CREATE FUNCTION daos_audit_entries_fixed() RETURNS trigger LANGUAGE plpgsql
    AS $$ BEGIN RAISE EXCEPTION '{FIXED}'; END $$
    """,
    """
    CREATE TRIGGER audit_entries_fixed BEFORE UPDATE ON audit_entries
    FOR EACH STATEMENT EXECUTE FUNCTION daos_audit_entries_fixed()
    """,
]


def upgrade() -> None:
    op.add_column("tokens", sa.Column("role", sa.String(length=32), nullable=False, server_default="ADMIN"))
    op.add_column("tokens", sa.Column("host_labels", sa.JSON(), nullable=True))
    op.add_column("tokens", sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True))
    op.create_table(
        "host_labels",
        sa.Column("host_id", sa.Uuid(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["host_id"], ["hosts.id"], name="fk_host_labels_host_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("host_id", "label", name="pk_host_labels"),
    )
    op.create_index("ix_host_labels_label_host_id", "host_labels", ["label", "host_id"])
    op.create_table(
        "audit_entries",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("principal", sa.Text(), nullable=False),
        sa.Column("address", sa.Text(), nullable=True),
        sa.Column("mutation", sa.Text(), nullable=False),
        sa.Column("object_ids", sa.JSON(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit_entries"),
    )
    op.create_index("ix_audit_entries_at", "audit_entries", ["at"])
    for statement in [SQLITE] if op.get_bind().dialect.name == "sqlite" else POSTGRESQL:
        op.execute(statement)
