"""``oplata config``."""

from __future__ import annotations

import json

import click


@click.group(short_help="See which settings hold, and where each comes from.")
def config() -> None:
    """See which settings hold, and where each comes from.

    A setting is looked for in the environment, in .env and in oplata.toml, in this order.
    """


@config.command(short_help="Show each setting, its value and where it stands.")
@click.option("--set", "only_set", is_flag=True, help="Only those that are set; not the defaults.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def show(only_set: bool, as_json: bool) -> None:
    """Show every setting as every other command here finds it: its value, and the place where that stands.

    Secrets are hidden; of a URL all but the password is shown. Exit code 2 when a setting is wrong.
    """
    from oplata.settings import Settings

    explained = [each for each in Settings.explain() if not only_set or each.origin != "default"]
    if as_json:
        for each in explained:
            click.echo(json.dumps({"name": each.name, "value": each.shown, "from": each.origin}, ensure_ascii=False))
        return
    widths = [max((len(each[part]) for each in explained), default=0) for part in (0, 1)]
    for each in explained:
        click.echo(f"{each.name:<{widths[0]}}  {each.shown:<{widths[1]}}  {each.origin}".rstrip())
