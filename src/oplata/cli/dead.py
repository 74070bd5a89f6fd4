"""``oplata dead``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from oplata.cli.moment import Moment

if TYPE_CHECKING:
    from oplata.storage.dead_letters import Wanted
    from oplata.storage.settling import Act

Command = TypeVar("Command", bound=Callable[..., Any])

MAX_AT_ONCE = 1_000_000

_FILTERS = (
    click.option("--reason", metavar="WORD", help="Only these, such as not_authentic or unreadable."),
    click.option("--since", type=Moment(), help="Last seen then or later: ISO 8601 (UTC), or an age such as 2h or 3d."),
    click.option("--until", type=Moment(), help="Last seen before then."),
    click.option("--terminal", metavar="KEY", help="Of this terminal, by a verified body or by an unverified claim."),
    click.option("--order", metavar="ORDER_ID", help="Of this order, by a verified body or by an unverified claim."),
    click.option(
        "--state",
        type=click.Choice(["open", "redriven", "discarded", "all"]),
        default="open",
        show_default=True,
        help="What became of them.",
    ),
)
_ACTS = (
    click.option("--all", "everything", is_flag=True, help="Every one in that state; needed without ids and filters."),
    click.option("--why", metavar="TEXT", help="Why; kept in the audit. Needed, but for a dry run."),
    click.option("--who", metavar="NAME", help="Who does it; kept in the audit. The system's user if not given."),
    click.option("--dry-run", is_flag=True, help="Say what would happen, and change nothing."),
    click.option(
        "--limit",
        type=click.IntRange(1, MAX_AT_ONCE),
        default=10_000,
        show_default=True,
        help="At most so many, oldest first.",
    ),
)
_as_json = click.option("--json", "as_json", is_flag=True, help="JSON instead of text; one object a line.")


def _with(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


@click.group(short_help="See, redrive and discard what could not be applied.")
def dead() -> None:
    """See what could not be applied, send it through again, or put it away.

    A dead letter keeps its bytes, the reason and when it was seen. Nothing here expires: a discarded one stays and
    can be redriven, and one that comes again is open again.
    """


@dead.command("list", short_help="List dead letters, last seen first.")
@click.argument("ids", nargs=-1, type=int, metavar="[ID]...")
@_with(*_FILTERS)
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True, help="At most so many.")
@click.option("--cursor", metavar="TEXT", help="Where the page before ended.")
@_as_json
def list_(ids: tuple[int, ...], limit: int, cursor: str | None, as_json: bool, **filters: Any) -> None:
    """List dead letters, last seen first: those with the given IDs, or all that the filters leave.

    A terminal and an order that nobody verified are marked: they are what the body claims.
    """
    from oplata.cli.asking import ask, tell, tell_more
    from oplata.cli.letters import as_line
    from oplata.orders.letters import Letters

    wanted = _wanted(ids, **filters)
    page = ask(lambda database: Letters(database).page(wanted, limit=limit, cursor=cursor))
    tell(page.items, as_json, as_line)
    tell_more(page.next_cursor, as_json)


@dead.command(short_help="Show one dead letter with its body.")
@click.argument("letter_id", type=int, metavar="ID")
@_as_json
def show(letter_id: int, as_json: bool) -> None:
    """Show the dead letter ID: reason, traceback, headers and body. Exit code 1 when there is none.

    Tokens are hidden and card numbers masked. A body that is no text is shown as base64.
    """
    from oplata.cli.asking import ask, tell
    from oplata.cli.letters import as_page
    from oplata.orders.letters import Letters

    tell([ask(lambda database: Letters(database).get(letter_id))], as_json, as_page)


@dead.command(short_help="Send dead letters through the queue again.")
@click.argument("ids", nargs=-1, type=int, metavar="[ID]...")
@_with(*_FILTERS, *_ACTS)
@_as_json
def redrive(
    ids: tuple[int, ...],
    everything: bool,
    why: str | None,
    who: str | None,
    dry_run: bool,
    limit: int,
    as_json: bool,
    **filters: Any,
) -> int:
    """Publish dead letters to the queue again, as first attempts, and mark them redriven.

    Mend the cause first: one that dies again is open again. Doing it twice is harmless, since a fact is applied once.
    With --dry-run each is parsed, verified and applied in a transaction that is rolled back, and what would become of
    it and of the orders is said. Exit code 1 when an ID is not there in that state, or the queue fails.
    """
    from oplata.cli.lifetime import run_loop
    from oplata.cli.redriving import rehearse, run

    wanted = _chosen(ids, everything, filters)
    if dry_run:
        done = run_loop(rehearse(wanted, limit, as_json))
    else:
        done = run_loop(run(wanted, _act(why, who), limit, as_json, publish=True))
    return _absent(set(ids) - done)


@dead.command(short_help="Put dead letters away.")
@click.argument("ids", nargs=-1, type=int, metavar="[ID]...")
@_with(*_FILTERS, *_ACTS)
@_as_json
def discard(
    ids: tuple[int, ...],
    everything: bool,
    why: str | None,
    who: str | None,
    dry_run: bool,
    limit: int,
    as_json: bool,
    **filters: Any,
) -> int:
    """Mark dead letters as discarded, for nobody has to look at them again. Their bytes stay.

    With --dry-run they are only listed. Exit code 1 when an ID is not there in that state.
    """
    from oplata.cli.lifetime import run_loop
    from oplata.cli.redriving import preview, run

    wanted = _chosen(ids, everything, filters)
    if dry_run:
        done = run_loop(preview(wanted, limit, as_json))
    else:
        done = run_loop(run(wanted, _act(why, who), limit, as_json, publish=False))
    return _absent(set(ids) - done)


def _chosen(ids: tuple[int, ...], everything: bool, filters: dict[str, Any]) -> Wanted:
    narrowed = [name for name, value in filters.items() if value is not None and name != "state"]
    if not ids and not narrowed and not everything:
        raise click.UsageError("Say which: IDs, filters such as --reason or --since, or --all.")
    return _wanted(ids, **filters)


def _wanted(
    ids: tuple[int, ...],
    *,
    reason: str | None,
    since: int | None,
    until: int | None,
    terminal: str | None,
    order: str | None,
    state: str,
) -> Wanted:
    from oplata.storage.dead_letters import State, Wanted

    return Wanted(
        ids=list(ids) or None,
        reason=reason,
        since_ms=since,
        until_ms=until,
        terminal_key=terminal,
        order_id=order,
        state=None if state == "all" else State(state),
    )


def _act(why: str | None, who: str | None) -> Act:
    from oplata.cli.rooms import os_user
    from oplata.storage.settling import Act

    if why is None or not why.strip():
        raise click.UsageError("Say why with --why: it is kept in the audit.")
    return Act(who=(who or "").strip() or os_user(), why=why.strip())


def _absent(ids: Any) -> int:
    for letter_id in sorted(ids):
        click.echo(f"oplata: there is no dead letter {letter_id} in that state.", err=True)
    return 1 if ids else 0
