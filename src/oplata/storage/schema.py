"""Which version the tables are, and how they get to ours. Alembic does the steps in ``migrations/``."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from oplata.errors import SchemaError

MIGRATION_LOCK = 0x6F706C6174
"""The key of the advisory lock that lets one process migrate at a time."""


def upgrade(connection: Connection) -> str:
    """Run the missing steps in the caller's transaction."""
    if connection.dialect.name == "postgresql":
        # Another process that migrates is waited for. A lock that others hold on a table is not: while a migration
        # waits for it, everyone else waits behind the migration.
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(text("SET LOCAL lock_timeout = '10min'"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
        connection.execute(text("SET LOCAL lock_timeout = '10s'"))
    before, ours = _current(connection), _head()
    if before == ours:
        return f"The tables are at version {ours} already."
    _refuse_newer(before)
    command.upgrade(_config(connection), "head")
    return f"The tables went from version {before or 'none'} to {ours}."


def check(connection: Connection) -> str:
    """The version of the tables, if it is ours. Raises ``SchemaError``."""
    found, ours = _current(connection), _head()
    if found == ours:
        return ours
    _refuse_newer(found)
    if found is None:
        raise SchemaError("the database has no tables of oplata yet: run `oplata migrate`")
    raise SchemaError(f"the tables are at version {found} and this program needs {ours}: run `oplata migrate`")


def _refuse_newer(found: str | None) -> None:
    if found is not None and found not in {step.revision for step in _scripts().walk_revisions()}:
        raise SchemaError(
            f"the tables are at version {found}, which this program does not know: install a newer oplata"
        )


def _current(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _head() -> str:
    return str(_scripts().get_current_head())


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config(None))


def _config(connection: Connection | None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    return config
