"""``oplata payments``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from oplata.orders.payments import PaymentLine

_as_json = click.option("--json", "as_json", is_flag=True, help="JSON instead of text; one object a line.")


@click.group(short_help="List and show payments.")
def payments() -> None:
    """List and show the payments that the bank told of, whichever order they are of."""


@payments.command("list", short_help="List payments, newest first.")
@click.option("--order", "order_id", metavar="ORDER_ID", help="Only payments of this order.")
@click.option("--status", metavar="WORD", help="Only those of this status of the bank, such as CONFIRMED.")
@click.option("--review/--no-review", default=None, help="Only those that a person must look at, or only the others.")
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True, help="At most so many.")
@click.option("--cursor", metavar="TEXT", help="Where the page before ended.")
@_as_json
def list_(
    order_id: str | None, status: str | None, review: bool | None, limit: int, cursor: str | None, as_json: bool
) -> None:
    """List payments, newest first; all of what is given has to hold."""
    from oplata.cli.asking import ask, tell, tell_more
    from oplata.orders.payments import Payments

    page = ask(
        lambda database: Payments(database).page(
            order_id=order_id, status=status, review=review, limit=limit, cursor=cursor
        )
    )
    tell(page.items, as_json, _line)
    tell_more(page.next_cursor, as_json)


@payments.command(short_help="Show one payment with all that was told of it.")
@click.argument("terminal_key")
@click.argument("payment_id")
@_as_json
def show(terminal_key: str, payment_id: str, as_json: bool) -> None:
    """Show the payment PAYMENT_ID of the terminal TERMINAL_KEY with every fact that the bank told of it."""
    from oplata.cli.asking import ask, rubles, tell
    from oplata.orders.payments import Payments

    page = ask(lambda database: Payments(database).get(payment_id, terminal_key))
    tell([page], as_json, _line)
    if not as_json:
        tell(page.facts, False, lambda fact: f"  {fact.status or '-'}  {rubles(fact.amount)}  callback {fact.callback}")


def _line(line: PaymentLine) -> str:
    from oplata.cli.asking import rubles

    note = f"  REVIEW: {line.review}" if line.review else ""
    whose = f"order {line.order_id or '-'}"
    return f"{line.terminal_key}  {line.payment_id}  {line.status}  {rubles(line.amount)}  {whose}{note}"
