"""Which version the tables are, and which this program's are. Without Alembic, which is large, and for steps only."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, inspect, text

MIGRATIONS = Path(__file__).parent / "migrations"


def current(connection: Connection) -> str | None:
    """The version of the tables; None where there are none."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return found


def head() -> str:
    """The version that this program's migrations lead to."""
    # They are one chain, and each file's name begins with its version: four digits.
    return max(path.name[:4] for path in (MIGRATIONS / "versions").glob("[0-9][0-9][0-9][0-9]_*.py"))


def ours(connection: Connection) -> str | None:
    """The version of the tables, if it is this program's."""
    found = current(connection)
    return found if found == head() else None


def unchanged(version: str) -> str:
    """What a migration says that had nothing to do."""
    return f"The tables are at version {version} already."
