"""Tokens by their ids, in the audit log and in the keys of requests that may come again"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"

_tokens = sa.table("tokens", sa.column("id", sa.Uuid()), sa.column("name"))
_keys = sa.table("idempotency_keys", sa.column("principal"))


def upgrade() -> None:
    # Entries that are there already stay as they are: a trigger refuses to change them.
    op.add_column("audit_entries", sa.Column("token_id", sa.Uuid(), nullable=True))
    connection = op.get_bind()
    for token_id, name in connection.execute(sa.select(_tokens)).all():
        # Keys of such a name may be the admin's own or those of an issuer's token, and stay theirs.
        if name != "admin" and not name.startswith("oidc:"):
            connection.execute(sa.update(_keys).where(_keys.c.principal == name).values(principal=f"token:{token_id}"))
