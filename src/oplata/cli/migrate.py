"""``oplata migrate``."""

from __future__ import annotations

import click


@click.command(short_help="Create the tables, or bring them up to date.")
def migrate() -> None:
    """Create the tables in OPLATA_DATABASE_URL, or bring them to this version.

    Safe to repeat, and to run from several places at once. `oplata up` does it by itself.
    """
    from oplata.cli.lifetime import run_loop
    from oplata.settings import Settings
    from oplata.settings.stores import database_of

    database = database_of(Settings.load())

    async def bring_up_to_date() -> str:
        await database.start()
        try:
            return await database.migrate()
        finally:
            await database.stop()

    click.echo(run_loop(bring_up_to_date()))
