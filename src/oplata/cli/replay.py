"""``oplata replay``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from oplata.cli.moment import Moment

if TYPE_CHECKING:
    from oplata.worker.archived import Span
    from oplata.worker.difference import Difference, Replayed

MAX_TOLD = 1000
"""So many differences are printed; all are counted."""


@click.command(short_help="Build payments and orders again from the archive.")
@click.option("--from", "from_ms", type=Moment(), help="Callbacks first seen then or later: ISO 8601 (UTC), or 2h, 3d.")
@click.option("--to", "to_ms", type=Moment(), help="Callbacks first seen before then.")
@click.option("--terminal", metavar="KEY", help="Only callbacks of this terminal.")
@click.option("--order", metavar="ORDER_ID", help="Only callbacks of this order.")
@click.option("--all", "everything", is_flag=True, help="The whole archive; needed without any of the others.")
@click.option("--dry-run", is_flag=True, help="Say which payments and orders would change and how, and change nothing.")
@click.option("--who", metavar="NAME", help="Who does it; kept in the audit. The system's user if not given.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of text; one object a line.")
def replay(
    from_ms: int | None,
    to_ms: int | None,
    terminal: str | None,
    order: str | None,
    everything: bool,
    dry_run: bool,
    who: str | None,
    as_json: bool,
) -> None:
    """Read archived callbacks again and make payments and orders what the events say, whatever stands there now.

    Every payment that the callbacks touch is folded anew from all its events, and then every order judged. Where all
    is well, nothing changes and nothing is told; an order that becomes another one is told in the change log. Safe
    while workers run, and safe to repeat. Tokens are not asked again: passwords change.
    """
    from oplata.cli.lifetime import run_loop
    from oplata.worker.archived import Span

    if not everything and (from_ms, to_ms, terminal, order) == (None, None, None, None):
        raise click.UsageError("Say which callbacks: --from, --to, --terminal, --order, or --all.")
    span = Span(from_ms=from_ms, to_ms=to_ms, terminal_key=terminal, order_id=order)
    totals, told = run_loop(_run(span, dry_run, who, as_json))
    if as_json:
        click.echo(_totals_json(totals, dry_run))
        return
    if told > MAX_TOLD:
        click.echo(f"... and {told - MAX_TOLD} more differences")
    click.echo(_summary(totals, dry_run))


async def _run(span: Span, dry_run: bool, who: str | None, as_json: bool) -> tuple[Replayed, int]:
    from oplata.cli.progress import Progress
    from oplata.cli.rooms import opened_database, os_user
    from oplata.settings import Settings
    from oplata.worker.forecast import Forecast
    from oplata.worker.replay import Replay

    told = 0

    def tell(difference: Difference) -> None:
        nonlocal told
        told += 1
        if told <= MAX_TOLD:
            progress.clear()
            click.echo(_difference_json(difference) if as_json else _difference_text(difference))

    progress = Progress()

    def show(totals: Replayed) -> None:
        progress.show(f"{totals.callbacks} callbacks, {totals.payments} payments, {totals.orders} orders")

    async with opened_database(Settings.load()) as database:
        if dry_run:
            totals = await Forecast(database, tell=tell, progress=show).run(span)
        else:
            totals = await Replay(database, tell=tell, progress=show).run(span, who=who or os_user())
    progress.clear()
    return totals, told


def _difference_text(difference: Difference) -> str:
    from oplata.cli.letters import printable

    return printable(f"{difference.kind} {difference.key}: {difference.before} -> {difference.after}")


def _difference_json(difference: Difference) -> str:
    import msgspec

    return msgspec.json.encode(difference).decode()


def _totals_json(totals: Replayed, dry_run: bool) -> str:
    import msgspec

    return msgspec.json.encode({"kind": "summary", "dryRun": dry_run, **msgspec.to_builtins(totals)}).decode()


def _summary(totals: Replayed, dry_run: bool) -> str:
    would = "would be " if dry_run else ""
    parts = [
        f"{totals.callbacks} callbacks read",
        f"{totals.events_recorded} events {would}recorded and {totals.events_restored} {would}restored",
        f"{totals.payments_mended} of {totals.payments} payments {would}mended",
        f"{totals.orders_restored} of {totals.orders} orders {would}restored to what was told of them",
        f"{totals.orders_changed} {would}changed and told",
    ]
    if totals.pruned:
        parts.append(f"{totals.pruned} pruned callbacks taken as their events are recorded")
    if totals.unreadable:
        parts.append(f"{totals.unreadable} callbacks could not be read and were left")
    return ", ".join(parts) + ("; nothing was changed" if dry_run else "")
