"""Alembic's entry point.  It always receives a connection inside a transaction, which the caller commits."""

from alembic import context

from db.models import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,  # SQLite alters a table by recreating it
    compare_type=True,
)
context.run_migrations()
