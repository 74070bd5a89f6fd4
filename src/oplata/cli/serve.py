"""``oplata serve``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from oplata.cli.service.arguments import can_be_several

if TYPE_CHECKING:
    from oplata.cli.service.post import Post


@click.command(short_help="Take callbacks and put them into the queue.")
@click.option("--host", help="Address to listen on, instead of OPLATA_HOST.")
@click.option("--port", type=click.IntRange(0, 65535), help="TCP port, instead of OPLATA_PORT; 0 takes any free one.")
@click.option(
    "--insecure", is_flag=True, default=None, help="Whoever reaches the port may do everything, without a key."
)
@can_be_several
@click.pass_context
def serve(
    context: click.Context,
    host: str | None,
    port: int | None,
    insecure: bool | None,
    processes: int | None,
    reload: bool,
    post: Post | None,
) -> int:
    """Take the bank's callbacks over HTTP, verify them, and answer OK once the queue has made each durable.

    The callbacks touch no database: `oplata worker` applies what the queue holds. Start as many of each as you need;
    with `--processes 2` two of them share the port. Beside the callbacks, the orders are served over tRPC to whoever
    has a key (`oplata keys create`); while there is none, it does not start.

    Put a reverse proxy with TLS in front, and let the terminal's NotificationURL point at it; the line that is printed
    at the start says with which path. Needs a terminal: OPLATA_TERMINAL_KEY and OPLATA_TERMINAL_PASSWORD. SIGHUP reads
    the terminals' passwords anew.
    """
    from oplata.app import Role
    from oplata.cli.process import run_role
    from oplata.cli.several import run_several
    from oplata.settings import Settings, chosen

    given = chosen(host=host, port=port, insecure=insecure)
    settings = Settings.load(**given)
    if post is None and (processes is not None or reload):
        return run_several(context, settings, processes=processes or 1, reload=reload, listens=True)
    run_role(Role.SERVE, settings, post=post, reread=lambda: Settings.load(**given))
    return 0
