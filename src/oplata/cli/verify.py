"""``oplata verify``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from oplata.cli.moment import Moment

if TYPE_CHECKING:
    from oplata.reconcile.gaps import Account, Gap
    from oplata.reconcile.verify import Range, Verification


@click.command(short_help="Prove that archive, payments, orders and change log agree.")
@click.option("--from", "from_ms", type=Moment(), help="Only what came then or later: ISO 8601 (UTC), or 2h, 3d.")
@click.option("--to", "to_ms", type=Moment(), help="Only what came before then.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of text; one object a line.")
def verify(from_ms: int | None, to_ms: int | None, as_json: bool) -> int:
    """Hold archive, events, payments, orders, change log and money against each other.

    The queue and the dead letters are counted: what waits there is no gap. It only reads, in one snapshot, so workers
    may run. Exit code 0 when all agrees; 1 with a sentence for each gap when something does not. `oplata replay` mends
    payments and orders; what the archive itself has lost nothing can mend.
    """
    from oplata.cli.lifetime import run_loop
    from oplata.reconcile.verify import Range

    verification = run_loop(_run(Range(from_ms=from_ms, to_ms=to_ms)))
    account, gaps = verification.account, verification.gaps
    for gap in gaps:
        click.echo(_gap_json(gap) if as_json else _gap_text(gap))
    if as_json:
        click.echo(_account_json(account, gaps.count))
    else:
        for sentence in _sentences(account):
            click.echo(sentence)
        click.echo("no gap was found" if gaps.count == 0 else f"{gaps.count} gaps were found")
    return 1 if gaps.count else 0


async def _run(span: Range) -> Verification:
    from oplata.cli.progress import Progress
    from oplata.cli.rooms import opened_database, opened_queue
    from oplata.reconcile.verify import Verification
    from oplata.settings import Settings

    settings, progress = Settings.load(), Progress()

    def show(account: Account) -> None:
        progress.show(f"{account.callbacks} callbacks, {account.events} events, {account.payments} payments")

    async with opened_database(settings) as database, opened_queue(settings) as queue:
        verification = Verification(database, queue, span, progress=show)
        await verification.run()
    progress.clear()
    return verification


def _sentences(account: Account) -> list[str]:
    from oplata.domain.money import format_rubles

    counted = f"{account.payments} payments, {account.orders} orders and {account.changes} changes"
    paid = f"{account.paid_orders} orders are paid, {format_rubles(account.paid_kopecks)} RUB"
    if account.paid_by_word:
        paid += f" ({account.paid_by_word} of them by somebody's word and not by the bank's)"
    captured = f"{format_rubles(account.captured_kopecks)} RUB were confirmed in {account.captured_payments} payments"
    states = ", ".join(f"{account.dead_letters.get(state, 0)} {state}" for state in ("open", "redriven", "discarded"))
    pruned = f" ({account.pruned} of them pruned)" if account.pruned else ""
    sentences = [
        f"checked {account.callbacks} callbacks{pruned}, {account.events} events, {counted}",
        f"{captured}; {paid}; {account.orders_for_review} wait for review",
    ]
    if account.depth is not None:
        depth = account.depth
        held = f"{depth.ready} ready, {depth.unacked} held by workers"
        sentences.append(f"queue: {held}, {depth.retry} to be retried, {depth.dead} dead")
    return [*sentences, f"dead letters: {states}"]


def _gap_text(gap: Gap) -> str:
    from oplata.cli.letters import printable

    return printable(f"gap ({gap.check}): {gap.sentence}")


def _gap_json(gap: Gap) -> str:
    import msgspec

    return msgspec.json.encode({"kind": "gap", "check": gap.check, "sentence": gap.sentence}).decode()


def _account_json(account: Account, gaps: int) -> str:
    import msgspec

    shown = msgspec.to_builtins(account)
    return msgspec.json.encode({"kind": "account", "gaps": gaps, **shown}).decode()
