"""``oplata keys``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from oplata.orders.keys import KeyView

_LIFETIME = re.compile(r"(\d{1,5})([hdw])", re.ASCII)
_UNIT_MS = {"h": 3_600_000, "d": 86_400_000, "w": 7 * 86_400_000}
_as_json = click.option("--json", "as_json", is_flag=True, help="JSON instead of text; one object a line.")
_who = click.option("--who", metavar="NAME", help="Who does it; kept in the audit. The system's user if not given.")


class Lifetime(click.ParamType[int]):
    """Milliseconds, from a text such as 90d."""

    name = "lifetime"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        found = _LIFETIME.fullmatch(str(value))
        if found is None or int(found[1]) == 0:
            self.fail(f"{value!r} is no lifetime such as 12h, 90d or 52w", param, ctx)
        return int(found[1]) * _UNIT_MS[found[2]]


@click.group(short_help="Make, list and revoke API keys.")
def keys() -> None:
    """Make, list and revoke the keys that open the door to the orders, /api/trpc.

    A key is random and shown once; what is stored of it opens nothing. Send it as `Authorization: Bearer KEY`, from
    servers alone: a browser is given a buyer's token for its one order.
    """


@keys.command(short_help="Make a key and show it once.")
@click.argument("name")
@click.option(
    "--scope",
    type=click.Choice(["read", "write", "operate"]),
    required=True,
    help="read: look at everything; write: also register orders and say what they are; operate: also dead letters.",
)
@click.option("--for", "lifetime_ms", type=Lifetime(), metavar="LIFETIME", help="Such as 90d; without it, for ever.")
@_who
@_as_json
def create(name: str, scope: str, lifetime_ms: int | None, who: str | None, as_json: bool) -> None:
    """Make a key called NAME, after whoever will hold it, and print it. It cannot be shown again."""
    import msgspec

    from oplata.cli.asking import ask
    from oplata.cli.rooms import os_user
    from oplata.orders.keys import Keys
    from oplata.orders.scopes import Scope

    made = ask(
        lambda database: Keys(database).create(name, Scope(scope), who=who or os_user(), lifetime_ms=lifetime_ms)
    )
    if as_json:
        click.echo(msgspec.json.encode({"key": made.key, **msgspec.to_builtins(made.view)}).decode())
        return
    click.echo(made.key)
    click.echo(f"This is {_line(made.view)}. It is not shown again.", err=True)


@keys.command("list", short_help="List the keys, newest first.")
@_as_json
def list_(as_json: bool) -> None:
    """List the keys, newest first, those that open nothing any more among them."""
    from oplata.cli.asking import ask, tell
    from oplata.orders.keys import Keys

    tell(ask(lambda database: Keys(database).list()), as_json, _line)


@keys.command(short_help="Let a key open nothing any more.")
@click.argument("key_id", metavar="ID")
@click.option("--why", metavar="TEXT", required=True, help="Why; kept in the audit.")
@_who
@_as_json
def revoke(key_id: str, why: str, who: str | None, as_json: bool) -> None:
    """Let the key ID open nothing any more. Running processes know of it within seconds."""
    from oplata.cli.asking import ask, tell
    from oplata.cli.rooms import os_user
    from oplata.orders.keys import Keys

    tell([ask(lambda database: Keys(database).revoke(key_id, who=who or os_user(), why=why))], as_json, _line)


def _line(view: KeyView) -> str:
    from oplata.cli.moment import said

    ends = "never expires" if view.expires_at is None else f"expires {said(view.expires_at)}"
    state = ends if view.revoked_at is None else f"revoked {said(view.revoked_at)} by {view.revoked_by}"
    return f"key {view.id}  {view.scope:<7}  {view.name}  {state}, last used {said(view.last_used_at)}"
