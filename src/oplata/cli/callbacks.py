"""``oplata callbacks``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from oplata.cli.moment import Moment

if TYPE_CHECKING:
    from oplata.orders.callbacks import CallbackLine

_as_json = click.option("--json", "as_json", is_flag=True, help="JSON instead of text; one object a line.")


@click.group(short_help="List and show what the bank sent.")
def callbacks() -> None:
    """List and show the callbacks in the archive, each distinct one once, with what it changed."""


@callbacks.command("list", short_help="List callbacks, last first.")
@click.option("--order", "order_id", metavar="ORDER_ID", help="Only callbacks about this order.")
@click.option("--source", metavar="ADDRESS", help="Only those that first came from this address.")
@click.option("--since", type=Moment(), help="First seen then or later: ISO 8601 (UTC), or an age such as 2h or 3d.")
@click.option("--until", type=Moment(), help="First seen before then.")
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True, help="At most so many.")
@click.option("--cursor", metavar="TEXT", help="Where the page before ended.")
@_as_json
def list_(
    order_id: str | None,
    source: str | None,
    since: int | None,
    until: int | None,
    limit: int,
    cursor: str | None,
    as_json: bool,
) -> None:
    """List callbacks, those first seen last at the top."""
    from oplata.cli.asking import ask, tell, tell_more
    from oplata.orders.callbacks import Callbacks

    page = ask(
        lambda database: Callbacks(database).page(
            order_id=order_id, source=source, since_ms=since, until_ms=until, limit=limit, cursor=cursor
        )
    )
    tell(page.items, as_json, _line)
    tell_more(page.next_cursor, as_json)


@callbacks.command(short_help="Show one callback and what it changed.")
@click.argument("callback_id", metavar="ID")
@_as_json
def show(callback_id: str, as_json: bool) -> None:
    """Show the callback ID: its body, where it came from, how often, and what it changed.

    Tokens are hidden and card numbers masked; a body that is no text is shown as base64.
    """
    from oplata.cli.asking import ask, tell
    from oplata.cli.letters import printable
    from oplata.orders.callbacks import Callbacks

    page = ask(lambda database: Callbacks(database).get(callback_id))
    tell([page], as_json, _line)
    if as_json:
        return
    tell(
        page.changes,
        False,
        lambda change: f"  order {change.order_id}: {change.previous_status or 'unregistered'} -> {change.status}",
    )
    click.echo(printable(page.body if page.body is not None else f"(base64) {page.body_base64}"))


def _line(line: CallbackLine) -> str:
    from oplata.cli.moment import said

    what = f"order {line.order_id or '-'}  payment {line.payment_id or '-'}  {line.status or '-'}"
    times = f"{said(line.first_seen_at)}  x{line.times_seen}"
    return f"{line.id}  {times}  {what}  from {line.source or 'an unknown address'}"
