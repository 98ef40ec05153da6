"""Store files of packages as bytes, with a mode."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    with op.batch_alter_table("package_files") as files:
        files.add_column(sa.Column("data", sa.LargeBinary(), nullable=True))
        files.add_column(sa.Column("mode", sa.Integer(), nullable=False, server_default=str(0o644)))
        files.add_column(sa.Column("only_if_missing", sa.Boolean(), nullable=False, server_default=sa.false()))
    content = sa.column("content", sa.Text())
    is_postgresql = op.get_bind().dialect.name == "postgresql"
    data = sa.func.convert_to(content, "UTF8") if is_postgresql else sa.cast(content, sa.LargeBinary())
    op.execute(sa.table("package_files", content, sa.column("data", sa.LargeBinary())).update().values(data=data))
    with op.batch_alter_table("package_files") as files:
        files.alter_column("data", existing_type=sa.LargeBinary(), nullable=False)
        files.alter_column("mode", existing_type=sa.Integer(), server_default=None)
        files.alter_column("only_if_missing", existing_type=sa.Boolean(), server_default=None)
        files.drop_column("content")
