"""``oplata up``."""

from __future__ import annotations

import click

from oplata.cli.code import app_option


@click.command(short_help="Run everything in one process, for the real bank.")
@click.option("--host", help="Address to listen on, instead of OPLATA_HOST.")
@click.option("--port", type=click.IntRange(0, 65535), help="TCP port, instead of OPLATA_PORT; 0 takes any free one.")
@click.option(
    "--insecure", is_flag=True, default=None, help="Let whoever reaches the port do everything, without a key."
)
@app_option
def up(host: str | None, port: int | None, insecure: bool | None, app: str | None) -> None:
    """Take the bank's callbacks and apply them to orders, all in this one process.

    The tables are created and brought up to date first. Without further settings both the queue and the orders live in
    SQLite files in the current directory; OPLATA_QUEUE_URL and OPLATA_DATABASE_URL name others.

    The orders are served over tRPC to whoever has a key: `oplata migrate` and `oplata keys create` make the first one.

    Needs a terminal: OPLATA_TERMINAL_KEY and OPLATA_TERMINAL_PASSWORD. Ctrl-C or SIGTERM stops it when what is in
    flight is done; SIGHUP reads the terminals' passwords anew.
    """
    from oplata.app import Role
    from oplata.cli.process import run_role
    from oplata.settings import Settings, chosen

    given = chosen(host=host, port=port, insecure=insecure)
    run_role(Role.UP, Settings.load(**given), app=app, reread=lambda: Settings.load(**given))
