"""Alembic's entry: migrates on the connection that `db.schema.migrate` hands over."""

from alembic import context

from db.models import Base

connection = context.config.attributes.get("connection")
if connection is None:
    raise RuntimeError(
        "Run migrations with `dermq migrate`; a new one is drafted by tests/integration/db/test_schema.py."
    )
# Both databases roll table changes back; Alembic does not believe it of SQLite, where `BEGIN` is left to us.
context.configure(connection=connection, target_metadata=Base.metadata, render_as_batch=True, transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()
connection.commit()
