"""``oplata serve``."""

from __future__ import annotations

import click


@click.command(short_help="Take callbacks and put them into the queue.")
@click.option("--host", help="Address to listen on, instead of OPLATA_HOST.")
@click.option("--port", type=click.IntRange(0, 65535), help="TCP port, instead of OPLATA_PORT; 0 takes any free one.")
def serve(host: str | None, port: int | None) -> None:
    """Take the bank's callbacks over HTTP, verify them, and answer OK once the queue has made each durable.

    It touches no database: `oplata worker` applies what the queue holds. Start as many of each as you need.

    Put a reverse proxy with TLS in front, and let the terminal's NotificationURL point at it; the line that is printed
    at the start says with which path. Needs a terminal: OPLATA_TERMINAL_KEY and OPLATA_TERMINAL_PASSWORD.
    """
    from oplata.app import Role
    from oplata.cli.process import run_role
    from oplata.settings import Settings, chosen

    run_role(Role.SERVE, Settings.load(**chosen(host=host, port=port)))
