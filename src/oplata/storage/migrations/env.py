"""Alembic's entry: runs the steps on the connection that ``schema.upgrade`` hands over, in its transaction."""

from alembic import context

from oplata.storage.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,
    transaction_per_migration=False,
)
context.run_migrations()
