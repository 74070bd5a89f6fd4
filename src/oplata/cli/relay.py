"""``oplata relay``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from oplata.settings import Settings


@click.command(short_help="Tell the shop's own systems of every change.")
def relay() -> None:
    """Tell every sink of the settings of each change of an order: at least once, and in order for each order.

    Sinks stand as [[sinks]] in oplata.toml: a tRPC server, a receiver of signed webhooks, an exchange of RabbitMQ.
    `oplata up` does the same by itself. Start two for one to survive the other; each sink is told by one of them at a
    time. Ctrl-C or SIGTERM stops it once what is under way has been answered. `oplata sinks` shows how it goes.
    """
    from oplata.cli.lifetime import run_loop
    from oplata.cli.process import reporting
    from oplata.settings import Settings

    settings = Settings.load()
    with reporting(settings):
        run_loop(_run(settings))


async def _run(settings: Settings) -> None:
    import asyncio

    from oplata.cli.lifetime import signals_heard, until_stopped
    from oplata.cli.measured import measured
    from oplata.cli.service.watched import Watched
    from oplata.errors import SettingsError
    from oplata.feed.hub import Hub
    from oplata.feed.relay import Relay
    from oplata.observability.logging import loop_failed
    from oplata.settings.observers import tracing_of
    from oplata.settings.stores import database_of
    from oplata.settings.targets import targets_of

    if not settings.sinks:
        raise SettingsError("No sink is set, so there is nobody to tell. List your [[sinks]] in oplata.toml.")
    asyncio.get_running_loop().set_exception_handler(loop_failed)
    database = database_of(settings)
    hub = Hub(database)
    tracing = tracing_of(settings, "relay")
    relay = Relay(database, hub, targets_of(settings.sinks), tracing=tracing)
    # That its event loop goes round is all that a relay can say of itself: how its sinks are is told by the metrics.
    watched = Watched("relay", None, progresses=lambda: True)
    await database.start()
    await hub.start()
    try:
        # SIGHUP is for the passwords of terminals, and a relay has none.
        with signals_heard(on_hangup=lambda: None) as stopping:
            async with watched.beating(), measured(settings, database, hub):
                relay.start()
                names = ", ".join(sink.name for sink in settings.sinks)
                watched.ready(f"is ready: it tells {names} of the changes in {database.name}")
                await until_stopped(stopping, relay.watch())
                watched.stopping()
                click.echo("oplata relay is stopping: it finishes what is under way", err=True)
    finally:
        await relay.drain(settings.drain_timeout_s)
        await hub.stop()
        await database.stop()
        if tracing is not None:
            await tracing.stop()
