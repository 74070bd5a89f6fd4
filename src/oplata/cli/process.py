"""The three commands that run until they are told to stop: ``up``, ``serve`` and ``worker``."""

from __future__ import annotations

import click

from oplata.app import Oplata, Role
from oplata.cli.lifetime import listening, run_loop, stop_on_signals, until_stopped
from oplata.observability.logging import configure, without_passwords
from oplata.settings import Settings


def run_role(role: Role, settings: Settings) -> None:
    """Run this role until SIGTERM or SIGINT, then drain. Raises what ends it before."""
    configure(settings.log_level, settings.log_format)
    app = Oplata(settings, role=role)
    run_loop(_work(app) if role is Role.WORKER else _listen(app))


async def _listen(app: Oplata) -> None:
    settings = app.settings
    with stop_on_signals() as stopping:
        async with app, listening(app, settings.host, settings.port) as url:
            click.echo(
                f"oplata {app.role} is ready at {url}{settings.callback_path} - point the terminal's NotificationURL "
                f"at https://YOUR-PUBLIC-HOST{settings.callback_path}"
            )
            await until_stopped(stopping, app.watch())
            _say_draining(app)


async def _work(app: Oplata) -> None:
    with stop_on_signals() as stopping:
        async with app:
            queue = without_passwords(app.settings.queue_url.get_secret_value())
            click.echo(
                f"oplata worker is ready: it takes callbacks from {queue} and applies them to {app.database.name}"
            )
            await until_stopped(stopping, app.watch())
            _say_draining(app)


def _say_draining(app: Oplata) -> None:
    click.echo(
        f"oplata {app.role} is stopping: it finishes what is in flight; a second signal leaves at once", err=True
    )
