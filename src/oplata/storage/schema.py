"""Which version the tables are, and how they get to ours. Alembic does the steps in ``migrations/``.

Programs of two versions share the tables while the newer one is rolled out. So a step only adds; one that takes away
names in ``oldest_program`` the oldest version that can do without, and the table ``compatibility`` keeps that name.
"""

from __future__ import annotations

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, select, text

from oplata.errors import SchemaError
from oplata.storage.tables import compatibility
from oplata.storage.version import MIGRATIONS, current, head, unchanged

MIGRATION_LOCK = 0x6F706C6174
"""The key of the advisory lock that lets one process migrate at a time."""

LOCK_WAIT_MS = 2000
"""How long a step waits for a lock on a table: while it waits, everyone else waits behind it."""


def upgrade(connection: Connection) -> str:
    """Run all missing steps in the caller's transaction."""
    before = current(connection)
    while step(connection):
        pass
    return end(connection, before)


def begin(connection: Connection) -> str | None:
    """Be the only one to migrate this PostgreSQL, as long as the connection lasts; returns the tables' version."""
    connection.execute(text("SET LOCAL statement_timeout = 0"))
    connection.execute(text("SET LOCAL lock_timeout = '10min'"))
    connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": MIGRATION_LOCK})
    return current(connection)


def step(connection: Connection) -> bool:
    """Run the next missing step in the caller's transaction; True when there may be another. Raises ``SchemaError``."""
    before = current(connection)
    if before == head() or _is_newer(connection, before):
        return False
    if connection.dialect.name == "postgresql":
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(text(f"SET LOCAL lock_timeout = {LOCK_WAIT_MS}"))
    command.upgrade(_config(connection), "+1")
    _note_oldest_program(connection)
    return True


def end(connection: Connection, before: str | None) -> str:
    """What was done since the tables were at version ``before``, in a sentence."""
    now, ours = current(connection), head()
    if now != ours:
        return f"The tables are at version {now}, newer than this program's {ours}, and suit it."
    if before == now:
        return unchanged(ours)
    return f"The tables went from version {before or 'none'} to {now}."


def check(connection: Connection) -> str:
    """The version of the tables, if this program can work on them. Raises ``SchemaError``."""
    found, ours = current(connection), head()
    if found is None:
        raise SchemaError("the database has no tables of oplata yet: run `oplata migrate`")
    if found == ours or _is_newer(connection, found):
        return found
    raise SchemaError(f"the tables are at version {found} and this program needs {ours}: run `oplata migrate`")


def _is_newer(connection: Connection, found: str | None) -> bool:
    """Whether a newer program made these tables. Raises ``SchemaError`` when they no longer suit this one."""
    if found is None or found in {each.revision for each in _scripts().walk_revisions()}:
        return False
    oldest, ours = _oldest_program(connection), head()
    # Versions are numbers of four digits, so their order is that of the letters.
    if oldest is not None and oldest <= ours:
        return True
    needs = "" if oldest is None else f" and which need a program of {oldest} or newer"
    raise SchemaError(
        f"the tables are at version {found}, which this program does not know{needs}: install a newer oplata"
    )


def _oldest_program(connection: Connection) -> str | None:
    if not inspect(connection).has_table(compatibility.name):
        return None
    return connection.execute(select(compatibility.c.oldest_program)).scalar()


def _note_oldest_program(connection: Connection) -> None:
    reached = current(connection)
    assert reached is not None  # noqa: S101  # A step was just taken.
    oldest = getattr(_scripts().get_revision(reached).module, "oldest_program", None)
    if oldest is not None:
        connection.execute(compatibility.delete())
        connection.execute(compatibility.insert().values(oldest_program=oldest))


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config(None))


def _config(connection: Connection | None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    return config
