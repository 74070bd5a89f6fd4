"""``oplata demo``."""

from __future__ import annotations

import click

LIVE_RATE_PER_S = 6.0
"""Callbacks and registrations per second without a number of orders: a pace that a person can follow."""

BRISK_RATE_PER_S = 250.0
"""The same with one: a pace that leaves the times in the summary those of the work, not of a crowd that waits."""


@click.command(short_help="See it work: everything in one process, with a played bank.")
@click.option(
    "--orders",
    type=click.IntRange(1, 100_000),
    metavar="N",
    help="Stop by itself after N orders (at most 100000). Without it, runs until Ctrl-C.",
)
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed plays the same orders.")
@click.option(
    "--rate",
    type=click.FloatRange(0.1, 10_000),
    metavar="R",
    help=f"Callbacks and registrations per second; {BRISK_RATE_PER_S:g} with --orders, {LIVE_RATE_PER_S:g} without.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    show_default=True,
    help="TCP port on 127.0.0.1; 0 is any free one.",
)
def demo(orders: int | None, seed: int, rate: float | None, port: int) -> int:
    """See orders become paid. It needs no settings, no services and no network, and leaves nothing behind.

    A played shop registers orders and a played bank sends signed callbacks of every kind about them: cards, SBP,
    T-Pay, holds, refunds, rejections, saved cards, receipts. They come repeated, out of order and with forgeries among
    them, and go through the real HTTP endpoint, queue, worker and database (SQLite files in a temporary directory).

    At the end, the database is compared with every callback that was answered OK. Exit code 1 if anything was lost or
    an order ended differently than it had to.
    """
    from oplata.cli.demonstration.run import demonstrate
    from oplata.cli.lifetime import run_loop

    pace = rate or (LIVE_RATE_PER_S if orders is None else BRISK_RATE_PER_S)
    return run_loop(demonstrate(orders=orders, seed=seed, rate_per_s=pace, port=port))
