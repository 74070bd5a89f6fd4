"""Several processes of one command, under a parent."""

from __future__ import annotations

import sys

import click

from oplata.cli.lifetime import reserved_port, run_loop
from oplata.cli.service.arguments import of_each
from oplata.cli.service.reload import changes
from oplata.cli.service.supervisor import Supervisor
from oplata.cli.service.systemd import Systemd
from oplata.observability.logging import configure
from oplata.settings import Settings
from oplata.settings.sources import service_manager


def run_several(context: click.Context, settings: Settings, *, processes: int, reload: bool, listens: bool) -> int:
    """Run the command of this context as several processes until a signal; returns the exit code."""
    configure(settings.log_level, settings.log_format)
    if not listens:
        return run_loop(_supervise(context, settings, processes, reload, None))
    with reserved_port(settings.host, settings.port) as port:
        return run_loop(_supervise(context, settings, processes, reload, port))


async def _supervise(context: click.Context, settings: Settings, processes: int, reload: bool, port: int | None) -> int:
    supervisor = Supervisor(
        str(context.info_name),
        [sys.executable, "-m", "oplata", *of_each(context)],
        processes=processes,
        drain_s=settings.drain_timeout_s,
        systemd=Systemd(service_manager()),
        port=port,
        changes=changes if reload else None,
    )
    return await supervisor.run()
