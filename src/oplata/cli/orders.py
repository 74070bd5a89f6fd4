"""``oplata orders``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from oplata.cli.moment import Moment
from oplata.domain.status import OrderStatus

if TYPE_CHECKING:
    from oplata.orders.views import OrderView

_as_json = click.option("--json", "as_json", is_flag=True, help="JSON instead of text; one object a line.")


@click.group(short_help="Register, show and list orders.")
def orders() -> None:
    """Register, show and list the orders in OPLATA_DATABASE_URL.

    An order is paid when the bank confirms a payment of exactly its amount; so it has to be registered, before its
    payment or after. Amounts are in kopecks.
    """


@orders.command(short_help="Tell of an order that is to be paid.")
@click.option("--order-id", required=True, help="The OrderId that you give the bank in Init; 1 to 36 characters.")
@click.option("--amount", required=True, type=click.IntRange(1), metavar="KOPECKS", help="19900 is 199 rubles.")
@_as_json
def register(order_id: str, amount: int, as_json: bool) -> None:
    """Register an order with its amount. Repeating it is harmless; another amount for the same order is refused."""
    from oplata.cli.asking import ask
    from oplata.orders.commands import Orders

    _show(ask(lambda database: Orders(database).register(order_id, amount)), as_json)


@orders.command(short_help="Show one order with its payments.")
@click.argument("order_id")
@_as_json
def show(order_id: str, as_json: bool) -> None:
    """Show the order ORDER_ID with its payments and receipts. Exit code 1 when no such order is registered."""
    from oplata.cli.asking import ask
    from oplata.orders.commands import Orders

    _show(ask(lambda database: Orders(database).get(order_id)), as_json)


@orders.command(short_help="Say what an order is.")
@click.argument("order_id")
@click.argument("status", type=click.Choice([each.value for each in OrderStatus if each.value != "unregistered"]))
@click.option("--why", metavar="TEXT", help="Why; kept in the audit.")
@click.option("--who", metavar="NAME", help="Who says it; kept in the audit. The system's user if not given.")
@_as_json
def status(order_id: str, status: str, why: str | None, who: str | None, as_json: bool) -> None:
    """Say that the order ORDER_ID is STATUS, such as paid for one that was paid in cash.

    It does not go back, and what the bank holds paid stays paid. What was said by mistake is taken back with
    `oplata orders withdraw`.
    """
    from oplata.cli.asking import ask
    from oplata.cli.rooms import os_user
    from oplata.orders.commands import Orders

    said = OrderStatus(status)
    _show(ask(lambda database: Orders(database).update_status(order_id, said, who=who or os_user(), why=why)), as_json)


@orders.command(short_help="Take back what was said of an order.")
@click.argument("order_id")
@click.option("--why", metavar="TEXT", required=True, help="Why; kept in the audit.")
@click.option("--who", metavar="NAME", help="Who does it; kept in the audit. The system's user if not given.")
@_as_json
def withdraw(order_id: str, why: str, who: str | None, as_json: bool) -> None:
    """Take back what was said of the order ORDER_ID, so that it is again what its payments make it."""
    from oplata.cli.asking import ask
    from oplata.cli.rooms import os_user
    from oplata.orders.commands import Orders

    _show(ask(lambda database: Orders(database).withdraw_status(order_id, who=who or os_user(), why=why)), as_json)


@orders.command(short_help="Print changes as they come.")
@click.argument("order_id", required=False)
@click.option("--after", metavar="ID", help="Begin after the change of this id; 0 is the beginning.")
@_as_json
def watch(order_id: str | None, after: str | None, as_json: bool) -> None:
    """Print every change of the order ORDER_ID, or of all, as it is committed; each with its id. Ctrl-C ends it."""
    from oplata.cli.lifetime import run_loop
    from oplata.cli.watching import watch

    run_loop(watch(order_id, after, as_json))


@orders.command("buyer-token", short_help="Let a browser watch one order.")
@click.argument("order_id")
@click.option(
    "--for",
    "lifetime_s",
    type=click.IntRange(1, 86_400),
    default=3600,
    show_default=True,
    metavar="SECONDS",
    help="How long it is good.",
)
def buyer_token(order_id: str, lifetime_s: int) -> None:
    """Print a token with which a browser may get and watch the order ORDER_ID, and nothing else, for a while."""
    from oplata.cli.asking import ask
    from oplata.orders.buyer import BuyerTokens
    from oplata.orders.commands import Orders
    from oplata.settings import Settings

    ask(lambda database: Orders(database).get(order_id))
    keys = [key.get_secret_value().encode() for key in Settings.load().buyer_token_keys]
    click.echo(BuyerTokens(keys).mint(order_id, lifetime_s)[0])


@orders.command("list", short_help="List orders, newest first.")
@click.option("--status", type=click.Choice([each.value for each in OrderStatus]), help="Only orders of this status.")
@click.option(
    "--since", type=Moment(), help="First heard of then or later: ISO 8601 (UTC), or an age such as 2h or 3d."
)
@click.option("--until", type=Moment(), help="First heard of before then.")
@click.option("--review/--no-review", default=None, help="Only those that a person must look at, or only the others.")
@click.option("--text", metavar="PART", help="Only orders in whose id this stands.")
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True, help="At most so many.")
@click.option("--after", metavar="ORDER_ID", help="The last order of the page before.")
@_as_json
def list_(
    status: str | None,
    since: int | None,
    until: int | None,
    review: bool | None,
    text: str | None,
    limit: int,
    after: str | None,
    as_json: bool,
) -> None:
    """List orders, newest first. Orders that only payments name are among them, as unregistered."""
    from oplata.cli.asking import ask, tell
    from oplata.orders.commands import Orders
    from oplata.storage.orders import Filter

    wanted = Filter(status=status, since_ms=since, until_ms=until, review=review, text=text)
    tell(ask(lambda database: Orders(database).list(wanted, limit=limit, after=after)), as_json, _line)


def _show(view: OrderView, as_json: bool) -> None:
    from oplata.cli.asking import tell

    tell([view], as_json, _page)


def _page(view: OrderView) -> str:
    from oplata.cli.asking import rubles

    lines = [_line(view)]
    for payment in view.payments:
        note = f"  REVIEW: {payment.review}" if payment.review else ""
        lines.append(f"  payment {payment.payment_id}  {payment.status}  {rubles(payment.amount)}{note}")
    for receipt in view.receipts:
        lines.append(f"  receipt {receipt.type or ''}  {rubles(receipt.amount)}  {receipt.url or ''}".rstrip())
    return "\n".join(lines)


def _line(view: OrderView) -> str:
    from oplata.cli.asking import rubles

    note = f"  REVIEW: {view.review}" if view.review else ""
    word = "" if view.word is None else f"  ({view.word.said_by} said {view.word.status})"
    return f"{view.order_id}  {view.status}  {rubles(view.amount)}{word}{note}"
