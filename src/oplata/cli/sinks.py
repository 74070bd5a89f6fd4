"""``oplata sinks``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from oplata.cli.moment import Moment, said

if TYPE_CHECKING:
    from oplata.feed.steering import SinkView, Steering
    from oplata.storage.deliveries import DeliveryRow
    from oplata.storage.engine import Database

T = TypeVar("T")

_as_json = click.option("--json", "as_json", is_flag=True, help="JSON instead of text; one object a line.")
_why = click.option("--why", metavar="TEXT", required=True, help="Why; kept in the audit.")
_who = click.option("--who", metavar="NAME", help="Who does it; kept in the audit. The system's user if not given.")


@click.group(short_help="Steer what tells the shop's own systems of changes.")
def sinks() -> None:
    """See how far each of the shop's own systems has been told of changes, and steer that.

    A sink is known here once a relay has begun with it. Whoever runs the relay sees what is done here within seconds.
    """


@sinks.command("list", short_help="List the sinks and how far each is.")
@_as_json
def list_(as_json: bool) -> None:
    """List the sinks: whether a relay tells them now, what waits, what is dead, and what went wrong last."""
    for view in _run(lambda steering, _: steering.every()):
        click.echo(_json(view) if as_json else _line(view))


@sinks.command(short_help="List deliveries, newest change first.")
@click.argument("name", required=False)
@click.option("--state", type=click.Choice(["waiting", "told", "skipped", "dead"]), help="Only those in this state.")
@click.option("--order", metavar="ORDER_ID", help="Only those of this order.")
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True, help="At most so many.")
@_as_json
def deliveries(name: str | None, state: str | None, order: str | None, limit: int, as_json: bool) -> None:
    """List deliveries to the sink NAME, or to all: what was told, what waits and until when, what is dead and why."""

    async def search(_steering: Steering, database: Database) -> list[DeliveryRow]:
        async with database.unit_of_work(read_only=True) as uow:
            return await uow.deliveries.search(sink=name, state=state, order_id=order, limit=limit)

    for row in _run(search):
        click.echo(_json(row) if as_json else _row(row))


@sinks.command(short_help="Have a sink told nothing until it is resumed.")
@click.argument("name")
@_why
@_who
def pause(name: str, why: str, who: str | None) -> None:
    """Have the sink NAME told nothing until it is resumed. Nothing is lost meanwhile: the changes wait."""
    _run(lambda steering, _: steering.pause(name, paused=True, who=_actor(who), why=why))
    click.echo(f"The sink {name} is paused; what is under way ends within seconds.")


@sinks.command(short_help="Have a paused sink told again.")
@click.argument("name")
@_why
@_who
def resume(name: str, why: str, who: str | None) -> None:
    """Have the sink NAME told again, from where it was paused on."""
    _run(lambda steering, _: steering.pause(name, paused=False, who=_actor(who), why=why))
    click.echo(f"The sink {name} is resumed.")


@sinks.command(short_help="Have a sink told again what it was told, or could not be.")
@click.argument("name")
@click.option("--dead", is_flag=True, help="What is dead, each with all that followed it in its order.")
@click.option("--order", metavar="ORDER_ID", help="All changes of this order.")
@click.option("--since", type=Moment(), help="All changes since then: ISO 8601 (UTC), or an age such as 2h or 3d.")
@_why
@_who
def replay(name: str, dead: bool, order: str | None, since: int | None, why: str, who: str | None) -> None:
    """Have the sink NAME told again: what is dead, one order, or all since a time.

    Each order is told again in its order and up to what it is now, so the receiver ends with the truth. The ids of the
    events are the same as before: a receiver that knows repeats by them drops what it has.
    """
    from oplata.feed.steering import Again

    if (dead, order is not None, since is not None).count(True) != 1:
        raise click.UsageError("Say what is to be told again with one of --dead, --order and --since.")
    again = Again(dead=dead, order_id=order, since_ms=since)
    count = _run(lambda steering, _: steering.replay(name, again, who=_actor(who), why=why))
    click.echo(f"{count} deliveries to {name} will be made again.")


def _actor(who: str | None) -> str:
    from oplata.cli.rooms import os_user

    return (who or "").strip() or os_user()


def _run(act: Callable[[Steering, Database], Awaitable[T]]) -> T:
    from oplata.cli.lifetime import run_loop
    from oplata.cli.rooms import opened_database
    from oplata.feed.steering import Steering
    from oplata.settings import Settings

    async def inside() -> T:
        async with opened_database(Settings.load()) as database:
            return await act(Steering(database), database)

    return run_loop(inside())


def _line(view: SinkView) -> str:
    state = "paused" if view.paused else "told by a relay" if view.held else "no relay runs"
    line = (
        f"{view.name}: {state}; told {view.told}, last {said(view.last_told_at_ms)}; "
        f"{view.waiting} waiting, {view.dead} dead, {view.behind} behind"
    )
    if view.failing_since_ms is not None:
        line += f"; failing since {said(view.failing_since_ms)}: {view.last_error}"
    return line


def _row(row: DeliveryRow) -> str:
    when = f"due {said(row.due_at_ms)}" if row.state == "waiting" else said(row.settled_at_ms)
    line = f"{row.change_id}  {row.sink}  {row.order_id}  {row.state}  {when}  {row.attempts} failed"
    return line if row.last_error is None else f"{line}  {row.last_error}"


def _json(shown: Any) -> str:
    import msgspec

    return msgspec.json.encode(shown).decode()
