"""What the demonstration shows: a live table in a terminal, a line for each change anywhere else."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from oplata.bank.simulator.traffic import Order
from oplata.cli.demonstration.tally import Summary, Tally
from oplata.domain.money import format_rubles
from oplata.storage.changes import Change

ROWS = 14
FRAMES_PER_S = 8

_COLORS = {
    "unregistered": "magenta",
    "pending": "yellow",
    "authorized": "cyan",
    "paid": "bold green",
    "partially_refunded": "blue",
    "refunded": "blue",
    "canceled": "bright_black",
    "failed": "red",
}


class _Console(Console):
    def on_broken_pipe(self) -> None:
        # Rich would end the process here, in the middle of a task, with requests in flight.
        raise BrokenPipeError


class Screen:
    """Draws on ``stream``. ``orders`` are those that the traffic has begun; ``total`` is None for no end."""

    def __init__(self, stream: TextIO, orders: list[Order], tally: Tally, total: int | None) -> None:
        self._console = _Console(file=stream)
        self._is_live = self._console.is_terminal
        self._orders = orders
        self._tally = tally
        self._total = total
        self._latest: OrderedDict[str, Change] = OrderedDict()
        self._live: Live | None = None
        self._statuses: dict[str, str] = {}

    def live(self) -> AbstractContextManager[object]:
        """Keeps the table on the screen while it is entered."""
        self._live = self._new_live() if self._is_live else None
        return self._live or nullcontext()

    def refresh(self) -> None:
        """Draw the table anew."""
        if self._live is not None:
            self._live.refresh()

    def say(self, sentence: str) -> None:
        """One line of text."""
        self._console.print(sentence, highlight=False, markup=False, soft_wrap=True)

    def change(self, change: Change) -> None:
        """An order changed."""
        self._statuses[change.order_id] = change.status
        self._latest[change.order_id] = change
        self._latest.move_to_end(change.order_id)
        while len(self._latest) > ROWS:
            self._latest.popitem(last=False)
        if not self._is_live:
            before = change.previous_status or "new"
            note = f"  review: {change.review}" if change.review else ""
            self.say(f"{change.order_id}  {before} -> {change.status}  {_rubles(change.amount_kopecks)}{note}")

    def summary(self, summary: Summary) -> None:
        """The rows at the end, and what is wrong, if anything is."""
        self.say("")
        for name, value in summary_rows(summary):
            self.say(f"{name:<28}{value:>10}")
        for problem in summary.problems:
            self.say(f"FAILED: {problem}")

    def _new_live(self) -> Live:
        # It is drawn when the event loop says so: a thread of its own would read what the loop is changing.
        return Live(get_renderable=self._draw, console=self._console, auto_refresh=False)

    def _draw(self) -> Group:
        table = Table(expand=False, title="orders, latest change last", title_justify="left")
        for name in ("order", "amount", "status", "before", "what is played"):
            table.add_column(name, justify="right" if name == "amount" else "left", no_wrap=True)
        stories = {order.order_id: order.story for order in self._orders[-500:]}
        for change in self._latest.values():
            mark = " (review)" if change.review else ""
            table.add_row(
                change.order_id,
                _rubles(change.amount_kopecks),
                Text(f"{change.status}{mark}", style=_COLORS.get(change.status, "")),
                Text(change.previous_status or "", style="bright_black"),
                stories.get(change.order_id, ""),
            )
        return Group(table, *self._progress())

    def _progress(self) -> list[Text | ProgressBar]:
        tally, settled = self._tally, sum(self._statuses.get(each.order_id) == each.ends for each in self._orders)
        accepted = tally.accepted.total()
        counts = Text(
            f"sent {tally.sent}   accepted {accepted}   refused {tally.refused}   "
            f"repeats {accepted - len(tally.accepted)}   orders {len(self._orders)}   where they must end {settled}"
        )
        if self._total is None:
            return [counts, Text("Ctrl-C stops it and shows the summary", style="bright_black")]
        return [counts, ProgressBar(total=self._total, completed=settled, width=60)]


def summary_rows(summary: Summary) -> list[tuple[str, str]]:
    """The summary as names and values, top to bottom."""
    rows: list[tuple[str, int]] = [
        ("sent", summary.sent),
        ("accepted", summary.accepted),
        ("refused", summary.refused),
        ("repeats absorbed", summary.repeats),
        ("applied", summary.applied),
        ("orders", summary.orders),
        *((f"  {status}", number) for status, number in _ordered(summary.by_status)),
        ("lost", summary.lost),
    ]
    times = (("callback to paid, median ms", summary.median_ms), ("callback to paid, p99 ms", summary.p99_ms))
    return [(name, str(value)) for name, value in rows] + [
        (name, "-" if value is None else f"{value:.1f}") for name, value in times
    ]


def _ordered(by_status: Mapping[str, int]) -> list[tuple[str, int]]:
    places = list(_COLORS)
    return sorted(by_status.items(), key=lambda row: places.index(row[0]) if row[0] in places else len(places))


def _rubles(amount_kopecks: int | None) -> str:
    return "-" if amount_kopecks is None else f"{format_rubles(amount_kopecks)} RUB"
