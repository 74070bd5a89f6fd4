"""What ``oplata dead redrive`` and ``oplata dead discard`` do and print."""

from __future__ import annotations

from collections.abc import AsyncIterator

import click
import msgspec

from oplata.bank.keyring import Keyring
from oplata.cli.letters import as_line, printable
from oplata.cli.rooms import opened_database, opened_queue
from oplata.orders.letters import line, movement
from oplata.settings import Settings
from oplata.storage.dead_letters import Wanted
from oplata.storage.settling import Act, Move, Outcome, Prospect
from oplata.worker.redrive import BATCH_SIZE, Redrive

REDRIVEN, DISCARDED, LEFT = "redriven", "discarded", "left open"


async def run(wanted: Wanted, act: Act, limit: int, as_json: bool, *, publish: bool) -> set[int]:
    """Redrive, or discard, and say each; returns the ids that were there."""
    settings = Settings.load()
    async with opened_database(settings) as database:
        work = Redrive(database, batch_size=min(BATCH_SIZE, settings.max_in_flight))
        if not publish:
            return await _report(work.discard(wanted, act, limit=limit), DISCARDED, as_json)
        async with opened_queue(settings) as queue:
            outcomes = work.redrive(queue.publisher(), wanted, act, limit=limit)
            return await _report(outcomes, REDRIVEN, as_json)


async def preview(wanted: Wanted, limit: int, as_json: bool) -> set[int]:
    """List what would be discarded; returns the ids."""
    seen: set[int] = set()
    async with opened_database(Settings.load()) as database:
        async for buried in Redrive(database).letters(wanted, limit=limit):
            seen.add(buried.id)
            shown = line(buried)
            click.echo(msgspec.json.encode(shown).decode() if as_json else as_line(shown))
    if not as_json:
        click.echo(f"{len(seen)} would be discarded; nothing was changed")
    return seen


async def rehearse(wanted: Wanted, limit: int, as_json: bool) -> set[int]:
    """Say what a redrive would do; returns the ids that are there."""
    settings = Settings.load()
    keyring = Keyring(settings.passwords())
    counts = {"apply": 0, "repeat": 0, "bury": 0}
    seen: set[int] = set()
    async with opened_database(settings) as database:
        async for trial in Redrive(database).rehearse(keyring, wanted, limit=limit):
            for prospect in trial.prospects:
                seen.add(prospect.letter.id)
                counts[prospect.would] += 1
                click.echo(_prospect_json(prospect) if as_json else _prospect_text(prospect))
            for move in trial.moves:
                click.echo(_move_json(move) if as_json else _move_text(move))
    if not as_json:
        click.echo(
            f"{counts['apply']} would be applied, {counts['repeat']} are known already and would change nothing, "
            f"{counts['bury']} would end here again; nothing was changed"
        )
    return seen


async def _report(outcomes: AsyncIterator[Outcome], done: str, as_json: bool) -> set[int]:
    settled, seen = 0, set[int]()
    try:
        async for outcome in outcomes:
            seen.add(outcome.letter.id)
            settled += outcome.settled
            click.echo(_outcome_json(outcome, done) if as_json else _outcome_text(outcome, done))
    finally:
        if not as_json:
            click.echo(f"{settled} {done}" + (f", {len(seen) - settled} {LEFT}" if len(seen) > settled else ""))
    return seen


def _outcome_text(outcome: Outcome, done: str) -> str:
    letter = outcome.letter
    what = done if outcome.settled else "left as it is: it came again, or was settled, meanwhile"
    return printable(f"{letter.id:>6}  {what}  {letter.letter.reason}  order {letter.letter.order_id or '-'}")


def _outcome_json(outcome: Outcome, done: str) -> str:
    letter = outcome.letter
    shown = {
        "id": letter.id,
        "outcome": done if outcome.settled else "left",
        "reason": letter.letter.reason,
        "orderId": letter.letter.order_id,
    }
    return msgspec.json.encode(shown).decode()


def _prospect_text(prospect: Prospect) -> str:
    words = {
        "apply": f"would be applied to order {prospect.order_id or '-'}",
        "repeat": "is known already and would change nothing",
        "bury": f"would end here again: {prospect.buried_again}",
    }
    return printable(f"{prospect.letter.id:>6}  {words[prospect.would]}")


def _prospect_json(prospect: Prospect) -> str:
    shown = {
        "id": prospect.letter.id,
        "would": prospect.would,
        "orderId": prospect.order_id,
        "detail": prospect.buried_again,
    }
    return msgspec.json.encode(shown).decode()


def _move_text(move: Move) -> str:
    note = f", for review: {move.review}" if move.review else ""
    return printable(f"        order {move.order_id}: {move.before} -> {move.after}{note}")


def _move_json(move: Move) -> str:
    return msgspec.json.encode(movement(move)).decode()
