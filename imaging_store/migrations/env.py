"""What Alembic runs for every command; the connection comes from ``imaging_store.migrations``."""

from alembic import context

from imaging_store.migrations import all_tables

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=all_tables(),
    compare_type=True,
    compare_server_default=True,
    # SQLite changes a table by making another one.
    render_as_batch=True,
)
context.run_migrations()
