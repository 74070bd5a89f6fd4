"""``oplata audit``."""

from __future__ import annotations

import click


@click.command(short_help="Say who did what, when and why.")
@click.option("--subject", metavar="TEXT", help="Only what was done to this, such as order:7, dead_letter:12, key:3f.")
@click.option("--actor", metavar="NAME", help="Only what this one did.")
@click.option("--action", metavar="WORD", help="Only this, such as order.status or key.revoked.")
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True, help="At most so many.")
@click.option("--cursor", metavar="TEXT", help="Where the page before ended.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of text; one object a line.")
def audit(
    subject: str | None, actor: str | None, action: str | None, limit: int, cursor: str | None, as_json: bool
) -> None:
    """List what was done by people and programs with keys, the latest first."""
    from oplata.cli.asking import ask, tell, tell_more
    from oplata.cli.moment import said
    from oplata.orders.audit import AuditTrail

    page = ask(
        lambda database: AuditTrail(database).page(
            subject=subject, actor=actor, action=action, limit=limit, cursor=cursor
        )
    )
    tell(
        page.items,
        as_json,
        lambda each: f"{said(each.at)}  {each.actor}  {each.action}  {each.subject}  {each.reason}".rstrip(),
    )
    tell_more(page.next_cursor, as_json)
