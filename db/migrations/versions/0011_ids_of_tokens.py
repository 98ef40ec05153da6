"""Identify tokens by id in the audit log and in idempotency keys."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"

_tokens = sa.table("tokens", sa.column("id", sa.Uuid()), sa.column("name"))
_keys = sa.table("idempotency_keys", sa.column("principal"))


def upgrade() -> None:
    # Existing entries are left as they are: a trigger rejects changes.
    op.add_column("audit_entries", sa.Column("token_id", sa.Uuid(), nullable=True))
    connection = op.get_bind()
    for token_id, name in connection.execute(sa.select(_tokens)).all():
        # Keys with these names may be those of the admin's own token or of an issuer's token, and are left unchanged.
        if name != "admin" and not name.startswith("oidc:"):
            connection.execute(sa.update(_keys).where(_keys.c.principal == name).values(principal=f"token:{token_id}"))
