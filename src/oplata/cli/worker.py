"""``oplata worker``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from oplata.cli.code import app_option
from oplata.cli.service.arguments import can_be_several

if TYPE_CHECKING:
    from oplata.cli.service.post import Post


@click.command(short_help="Apply the queue's callbacks to orders.")
@app_option
@can_be_several
@click.pass_context
def worker(context: click.Context, app: str | None, processes: int | None, reload: bool, post: Post | None) -> int:
    """Take callbacks from the queue and apply them to payments and orders, a batch in each transaction.

    Run `oplata migrate` once before. While the database is away it waits, and nothing is lost. Start several for more
    speed, or for one to survive the other: `--processes 4` on one machine, or the same command on several. Ctrl-C or
    SIGTERM stops it once the batch in hand is committed; SIGHUP reads the terminals' passwords anew.

    With --app, your own functions run in the transaction that changes an order: what they write is committed with it.
    """
    from oplata.app import Role
    from oplata.cli.process import run_role
    from oplata.cli.several import run_several
    from oplata.settings import Settings

    settings = Settings.load()
    if post is None and (processes is not None or reload):
        return run_several(context, settings, processes=processes or 1, reload=reload, listens=False)
    run_role(Role.WORKER, settings, app=app, post=post, reread=Settings.load)
    return 0
