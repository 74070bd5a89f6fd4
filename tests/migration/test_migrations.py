"""The migrations make exactly the tables that the program describes, on both databases, from several places at once."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect
from sqlalchemy.dialects.postgresql.base import PGDialect

from oplata.errors import SchemaError
from oplata.storage import migrations, version
from oplata.storage.engine import Database
from oplata.storage.tables import metadata
from tests.databases import TABLES, apply_all, callback, execute, opened, select_all

pytestmark = pytest.mark.anyio

VERSIONS = Path(migrations.__file__).parent / "versions"
HEAD = max(path.name[:4] for path in VERSIONS.glob("[0-9]*.py"))


async def test_a_fresh_upgrade_makes_the_tables_that_the_program_describes(database: Database) -> None:
    def differences(connection: Connection) -> list[object]:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        return list(compare_metadata(context, metadata))

    assert database._engine is not None
    async with database._engine.connect() as connection:
        found = await connection.run_sync(differences)
    # Comments are for readers of the description; the steps leave them out.
    assert [each for each in found if not _is_comment(each)] == []


def _is_comment(difference: object) -> bool:
    steps = difference if isinstance(difference, list) else [difference]
    return all(isinstance(step, tuple) and step[0] == "modify_comment" for step in steps)


async def test_ids_compare_byte_by_byte_in_postgresql(postgres_url: str) -> None:
    """Autogenerate does not see collations, and the order of locks and pages depends on them."""
    async with opened(postgres_url) as database:
        await database.migrate()
    query = (
        "SELECT c.relname || '.' || a.attname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid "
        "JOIN pg_collation l ON l.oid = a.attcollation WHERE c.relkind = 'r' AND l.collname = 'C' "
        "AND c.relnamespace = 'public'::regnamespace"
    )
    found = {str(row[0]) for row in await select_all(postgres_url, query)}
    dialect = PGDialect()  # type: ignore[no-untyped-call]  # SQLAlchemy's constructor has no types.
    described = {
        f"{table.name}.{column.name}"
        for table in metadata.sorted_tables
        for column in table.columns
        if getattr(column.type.dialect_impl(dialect), "collation", None) == "C"
    }
    assert found == described
    assert {"callbacks.digest", "payments.payment_id", "orders.order_id", "changes.order_id"} <= found


async def test_primary_and_unique_keys_are_the_described_ones(database: Database) -> None:
    def keys(connection: Connection) -> dict[str, list[str]]:
        return {table: inspect(connection).get_pk_constraint(table)["constrained_columns"] for table in TABLES}

    assert database._engine is not None
    async with database._engine.connect() as connection:
        found = await connection.run_sync(keys)
    assert found == {table: [column.name for column in metadata.tables[table].primary_key] for table in TABLES}


def test_the_version_that_is_known_without_alembic_is_the_one_that_alembic_leads_to() -> None:
    config = Config()
    config.set_main_option("script_location", str(version.MIGRATIONS))
    assert ScriptDirectory.from_config(config).get_current_head() == version.head()


def test_tables_that_are_up_to_date_cost_no_alembic(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/oplata.db"
    program = f"""
import asyncio, sys
from oplata.storage.engine import Database
async def main():
    database = Database({url!r})
    await database.start()
    print(await database.migrate(), await database.check(), "alembic" in sys.modules, sep="|")
    await database.stop()
asyncio.run(main())
"""
    first, second = (
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True).stdout
        for _ in range(2)
    )
    assert first.startswith("The tables went from version none to ")
    assert first.endswith("|True\n")
    assert second.startswith(f"The tables are at version {version.head()} already.|SQLite ")
    assert second.endswith("|False\n")


async def test_upgrading_twice_changes_nothing(database_url: str) -> None:
    async with opened(database_url) as database:
        assert await database.migrate() == f"The tables went from version none to {HEAD}."
        await apply_all(database, callback())
        assert await database.migrate() == f"The tables are at version {HEAD} already."
        assert f"tables at version {HEAD}" in await database.check()
    assert await select_all(database_url, "SELECT count(*) FROM events") == [(1,)]
    assert await select_all(database_url, "SELECT version_num FROM alembic_version") == [(HEAD,)]


async def test_an_empty_database_says_to_migrate(database_url: str) -> None:
    async with opened(database_url) as database:
        with pytest.raises(SchemaError, match="no tables of oplata yet: run `oplata migrate`"):
            await database.check()
        with pytest.raises(SchemaError, match="run `oplata migrate`"):
            await apply_all(database, callback())


async def test_tables_that_no_longer_suit_this_version_are_left_alone(database: Database, database_url: str) -> None:
    newer = "UPDATE alembic_version SET version_num = '9999'"
    await execute(database_url, newer, "UPDATE compatibility SET oldest_program = '9998'")
    sentence = "version 9999, .* a program of 9998 or newer: install a newer oplata"
    with pytest.raises(SchemaError, match=sentence):
        await database.check()
    with pytest.raises(SchemaError, match=sentence):
        await database.migrate()
    assert await select_all(database_url, "SELECT version_num FROM alembic_version") == [("9999",)]


_PROGRAM = """
import asyncio, sys
from oplata.storage.engine import Database
async def main():
    database = Database(sys.argv[1])
    await database.start()
    print("ready", flush=True)
    sys.stdin.readline()
    print(await database.migrate(), flush=True)
    await database.stop()
asyncio.run(main())
"""


async def test_several_processes_may_migrate_at_once(database_url: str) -> None:
    def run() -> list[str]:
        command = [sys.executable, "-c", _PROGRAM, database_url]
        processes = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)
        ]
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        said = [process.communicate(timeout=60)[0].strip() for process in processes]
        assert [process.returncode for process in processes] == [0, 0, 0]
        return sorted(said)

    assert await asyncio.to_thread(run) == [
        f"The tables are at version {HEAD} already.",
        f"The tables are at version {HEAD} already.",
        f"The tables went from version none to {HEAD}.",
    ]


async def test_one_process_may_migrate_several_times_at_once(database_url: str) -> None:
    async with opened(database_url) as first, opened(database_url) as second:
        said = await asyncio.gather(*(each.migrate() for each in (first, second, first, second)))
    assert sorted(said)[-1] == f"The tables went from version none to {HEAD}."
    assert len(set(said)) == 2
