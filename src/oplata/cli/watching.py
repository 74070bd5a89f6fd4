"""What ``oplata orders watch`` does and prints."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import click
import msgspec

from oplata.cli.letters import printable
from oplata.cli.lifetime import signals_heard
from oplata.cli.rooms import opened_database
from oplata.feed.hub import Hub
from oplata.orders.watching import StatusChange, Watching
from oplata.settings import Settings


async def watch(order_id: str | None, after: str | None, as_json: bool) -> None:
    """Print changes as they are committed, until a signal comes."""
    async with opened_database(Settings.load()) as database:
        hub = Hub(database)
        await hub.start()
        telling = asyncio.create_task(_tell(Watching(database, hub), order_id, after, as_json))
        try:
            with signals_heard() as stopping:
                waiting = asyncio.create_task(stopping.wait())
                await asyncio.wait({telling, waiting}, return_when=asyncio.FIRST_COMPLETED)
                waiting.cancel()
            if telling.done():
                telling.result()
        finally:
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)
            await hub.stop()


async def _tell(watching: Watching, order_id: str | None, after: str | None, as_json: bool) -> None:
    async with aclosing(watching.changes(order_id, after)) as changes:
        async for each in changes:
            if as_json:
                click.echo(msgspec.json.encode({"id": each.id, **msgspec.to_builtins(each.data)}).decode())
            else:
                click.echo(f"{each.id:>8}  {printable(_line(each.data))}")


def _line(change: StatusChange) -> str:
    note = f"  REVIEW: {change.review}" if change.review else ""
    return f"order {change.order_id}: {change.previous_status or 'unregistered'} -> {change.status}{note}"
