"""``oplata doctor``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from oplata.cli.checkup import Finding


@click.command(short_help="Check settings, queue, database and clock.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def doctor(as_json: bool) -> int:
    """Check settings, queue, spool, database, handlers and clock, and say of each that fails how to mend it.

    It reads the same settings as every other command. Nothing is sent and no order is touched; a missing SQLite file
    is created, as any other command would. Exit code 1 when something failed.
    """
    from oplata.cli.checkup import examine
    from oplata.cli.lifetime import run_loop
    from oplata.observability.logging import configure

    configure("error")
    findings = run_loop(examine())
    for finding in findings:
        click.echo(_json(finding) if as_json else f"{'✓' if finding.ok else '✗'} {finding.check:<9} {finding.message}")
    return 0 if all(finding.ok for finding in findings) else 1


def _json(finding: Finding) -> str:
    shown = {"check": finding.check, "ok": finding.ok, "message": finding.message}
    return json.dumps(shown, ensure_ascii=False)
