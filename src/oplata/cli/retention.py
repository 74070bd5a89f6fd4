"""``oplata retention``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from oplata.worker.retention import Pruned


@click.group(short_help="Take old bodies out of the archive, by a policy.")
def retention() -> None:
    """Take old bodies out of the archive, by the policy in OPLATA_RETENTION_BODIES_DAYS.

    Events, payments, orders, the change log, the audit and dead letters are never taken away.
    """


@retention.command(short_help="Prune what is older than the policy says.")
@click.option("--dry-run", is_flag=True, help="Say how much would be pruned, and change nothing.")
@click.option(
    "--all", "everything", is_flag=True, help="Look at the whole archive, not only at what the last run left."
)
@click.option("--who", metavar="NAME", help="Who does it; kept in the audit. The system's user if not given.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of text.")
def run(dry_run: bool, everything: bool, who: str | None, as_json: bool) -> None:
    """Take the body out of each archived callback that was first seen longer ago than OPLATA_RETENTION_BODIES_DAYS.

    What it said stays recorded as its event, and a repeat of it is still known. Batches of 1000, each a transaction;
    workers may run meanwhile. Repeat it as often as you like, every night say: it goes on where it left off.
    """
    from oplata.cli.lifetime import run_loop

    totals = run_loop(_run(dry_run, everything, who))
    if as_json:
        import msgspec

        click.echo(msgspec.json.encode({"dryRun": dry_run, **msgspec.to_builtins(totals)}).decode())
    else:
        click.echo(_summary(totals, dry_run))


async def _run(dry_run: bool, everything: bool, who: str | None) -> Pruned:
    from oplata.cli.progress import Progress
    from oplata.cli.rooms import opened_database, os_user
    from oplata.errors import SettingsError
    from oplata.settings import Settings
    from oplata.worker.retention import Retention

    settings, progress = Settings.load(), Progress()
    days = settings.retention_bodies_days
    if days is None:
        raise SettingsError(
            "No policy is set, so nothing may be taken away. Set OPLATA_RETENTION_BODIES_DAYS to the number of days "
            "after which bodies may go."
        )

    def show(totals: Pruned) -> None:
        progress.show(f"{totals.looked_at} callbacks looked at, {totals.pruned} pruned")

    async with opened_database(settings) as database:
        pruning = Retention(database, progress=show)
        totals = await pruning.run(days, who=who or os_user(), everything=everything, dry_run=dry_run)
    progress.clear()
    return totals


def _summary(totals: Pruned, dry_run: bool) -> str:
    would = "would be " if dry_run else ""
    kept = f"; {totals.kept} old ones were kept, in use or without an event" if totals.kept else ""
    size = f"{totals.pruned_bytes / 2**20:.1f} MiB"
    return f"{totals.pruned} bodies {would}pruned, {size}, of {totals.looked_at} callbacks looked at{kept}"
