"""Programs of two versions share the tables while the newer one is rolled out, and a migration makes nobody wait."""

from __future__ import annotations

import ast
import asyncio
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest
from alembic import command
from sqlalchemy import Connection

from oplata.storage import engine, migrations, schema
from oplata.storage.engine import Database
from tests.databases import apply_all, callback, execute, opened, select_all

pytestmark = pytest.mark.anyio

VERSIONS = sorted((Path(migrations.__file__).parent / "versions").glob("[0-9]*.py"))
WAITING = "SELECT 1 FROM pg_locks WHERE relation = 'dead_letters'::regclass AND NOT granted"
TAKES_AWAY = {"drop_column", "drop_table", "drop_constraint", "alter_column", "rename_table"}


async def test_tables_of_a_newer_version_are_worked_on_while_they_suit(database: Database, database_url: str) -> None:
    """A worker of the version before may be started anew in the midst of a rolling upgrade."""
    await execute(database_url, "UPDATE alembic_version SET version_num = '9999'")

    assert "tables at version 9999" in await database.check()
    assert "newer than this program's" in await database.migrate()
    await apply_all(database, callback())
    assert await select_all(database_url, "SELECT count(*) FROM events") == [(1,)]
    assert await select_all(database_url, "SELECT version_num FROM alembic_version") == [("9999",)]


async def test_the_oldest_program_is_kept_with_the_tables(database: Database, database_url: str) -> None:
    named = [name for path in VERSIONS for name in oldest_programs(path.read_text(encoding="utf-8"))]

    assert await select_all(database_url, "SELECT oldest_program FROM compatibility") == [(named[-1],)]


def oldest_programs(text: str) -> Iterator[str]:
    for node in ast.parse(text).body:
        if isinstance(node, ast.Assign) and "oldest_program" in {getattr(each, "id", "") for each in node.targets}:
            assert isinstance(node.value, ast.Constant)
            yield str(node.value.value)


def offences(text: str) -> list[str]:
    """What a step does that a program of the version before might not survive, unless it says who survives."""
    if list(oldest_programs(text)):
        return []
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in TAKES_AWAY:
            found.append(node.func.attr)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "Column":
            given = {keyword.arg: keyword.value for keyword in node.keywords}
            required = isinstance(given.get("nullable"), ast.Constant) and not given["nullable"].value  # type: ignore[attr-defined]
            if required and "server_default" not in given and "add_column" in text and "create_table" not in text:
                found.append("a required column without a default")
    return found


def test_steps_only_add() -> None:
    assert {path.name: offences(path.read_text(encoding="utf-8")) for path in VERSIONS} == {
        path.name: [] for path in VERSIONS
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("op.drop_column('a', 'b')", ["drop_column"]),
        ("op.add_column('a', sa.Column('b', sa.Text, nullable=False))", ["a required column without a default"]),
        ("op.add_column('a', sa.Column('b', sa.Text, nullable=False, server_default=''))", []),
        ("op.add_column('a', sa.Column('b', sa.Text))", []),
        ("oldest_program = '0004'\nop.drop_column('a', 'b')", []),
    ],
)
def test_a_step_that_takes_away_is_seen(text: str, expected: list[str]) -> None:
    assert offences(text) == expected


async def test_a_migration_that_waits_for_a_table_makes_nobody_wait(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long report holds the table; the migration asks again and again, and whoever else needs it passes meanwhile."""
    monkeypatch.setattr(schema, "LOCK_WAIT_MS", 200)
    monkeypatch.setattr(engine, "MIGRATION_PAUSE_S", 0.05)
    async with opened(postgres_url) as database:
        await _to_first_version(database)
        report = await asyncpg.connect(postgres_url, timeout=10)
        reading = report.transaction()
        await reading.start()
        await report.fetch("SELECT * FROM dead_letters")
        migrating = asyncio.create_task(database.migrate())
        # Each of these comes while the migration stands in the way; it has to pass before the report has ended.
        for number in range(5):
            async with asyncio.timeout(20):
                while not await select_all(postgres_url, WAITING):  # noqa: ASYNC110  The server has no event for it.
                    await asyncio.sleep(0.01)
                await execute(postgres_url, _insert_letter(number))
        assert not migrating.done()
        await reading.rollback()
        await report.close()
        said = await asyncio.wait_for(migrating, 20)

    assert said.startswith("The tables went from version 0001 to ")
    assert await select_all(postgres_url, "SELECT count(*), min(state) FROM dead_letters") == [(5, "open")]


async def _to_first_version(database: Database) -> None:
    def upgrade(connection: Connection) -> None:
        command.upgrade(schema._config(connection), "0001")

    assert database._engine is not None
    async with database._engine.begin() as connection:
        await connection.run_sync(upgrade)


def _insert_letter(number: int) -> str:
    columns = "fingerprint, reason, detail, body, content_type, headers, first_seen_at_ms, last_seen_at_ms, times_seen"
    return f"INSERT INTO dead_letters ({columns}) VALUES ('{number}', 'x', 'x', '', 'x', '{{}}', 1, 1, 1)"  # noqa: S608
