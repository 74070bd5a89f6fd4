"""``oplata worker``."""

from __future__ import annotations

import click


@click.command(short_help="Apply the queue's callbacks to orders.")
def worker() -> None:
    """Take callbacks from the queue and apply them to payments and orders, a batch in each transaction.

    Run `oplata migrate` once before. While the database is away it waits, and nothing is lost. Start several for more
    speed, or for one to survive the other. Ctrl-C or SIGTERM stops it once the batch in hand is committed.
    """
    from oplata.app import Role
    from oplata.cli.process import run_role
    from oplata.settings import Settings

    run_role(Role.WORKER, Settings.load())
