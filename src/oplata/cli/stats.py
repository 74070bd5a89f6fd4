"""``oplata stats``."""

from __future__ import annotations

import click


@click.command(short_help="Say how the orders stand.")
@click.option("--hours", type=click.IntRange(1, 744), default=24, show_default=True, help="So many hours back.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of text.")
def stats(hours: int, as_json: bool) -> None:
    """Say how many orders stand in each status, what wants a person's eye, and what happened in the last hours.

    The counts are kept as things change, so it takes the same time however many orders there are.
    """
    from oplata.cli.asking import ask, tell
    from oplata.cli.moment import said
    from oplata.domain.money import format_rubles
    from oplata.orders.stats import Stats

    overview = ask(lambda database: Stats(database).overview(hours=hours))
    if as_json:
        tell([overview], True, str)
        return
    for each in overview.orders:
        click.echo(f"{each.status:<20} {each.orders:>10}  {format_rubles(each.kopecks):>20} RUB")
    click.echo(
        f"{overview.for_review} orders wait for review, {overview.unregistered} are named by payments alone, "
        f"{overview.dead_letters} dead letters are open"
    )
    for hour in overview.hours:
        entered = ", ".join(f"{each.orders} {each.status}" for each in hour.entered)
        click.echo(f"{said(hour.at)}  {entered}")
