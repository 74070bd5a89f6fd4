"""A question to the database, asked for one command, and its answer printed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

import click
import msgspec

from oplata.cli.letters import printable
from oplata.cli.lifetime import run_loop
from oplata.cli.rooms import opened_database
from oplata.domain.money import format_rubles
from oplata.settings import Settings
from oplata.storage.engine import Database

T = TypeVar("T")


def ask(question: Callable[[Database], Awaitable[T]]) -> T:
    """Open the database of the settings, ask, and close it."""

    async def inside() -> T:
        async with opened_database(Settings.load()) as database:
            return await question(database)

    return run_loop(inside())


def tell(items: Iterable[T], as_json: bool, as_line: Callable[[T], str]) -> None:
    """Print each on a line, as JSON or as text in which nothing is an order to the terminal."""
    for item in items:
        click.echo(msgspec.json.encode(item).decode() if as_json else printable(as_line(item)))


def rubles(amount_kopecks: int | None) -> str:
    """An amount as text, also one that is not there."""
    return "no amount" if amount_kopecks is None else f"{format_rubles(amount_kopecks)} RUB"


def tell_more(next_cursor: str | None, as_json: bool) -> None:
    """Say how to get what follows, on standard error, where it is in nobody's way."""
    if next_cursor is not None and not as_json:
        click.echo(f"there may be more: --cursor {next_cursor}", err=True)
    elif next_cursor is not None:
        click.echo(msgspec.json.encode({"nextCursor": next_cursor}).decode(), err=True)
