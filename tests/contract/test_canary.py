"""A canary goes through queue, worker and database, and leaves nothing but the time it was sent."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from oplata.bank.canary import CONTENT_TYPE, canary, sent_at_ms
from oplata.bank.keyring import Keyring
from oplata.ingest.canary import CanarySender
from oplata.observability.metrics import Metrics
from oplata.queue.envelope import Envelope
from oplata.queue.sqlite import SqliteQueue
from oplata.reconcile.survey import Survey
from oplata.reconcile.verify import Range, Verification
from oplata.storage.engine import Database
from oplata.worker.loop import Worker
from tests.databases import KEYRING, NOW_MS, select_all
from tests.unit.test_metrics import scraped

pytestmark = pytest.mark.anyio


def test_only_who_knows_a_password_can_make_a_canary() -> None:
    body = canary(KEYRING, NOW_MS)
    assert sent_at_ms(KEYRING, body) == NOW_MS
    assert sent_at_ms(Keyring({"other": ["another password"]}), body) is None
    assert sent_at_ms(KEYRING, body.replace(b"%d" % NOW_MS, b"%d" % (NOW_MS + 1))) is None
    assert sent_at_ms(KEYRING, b'{"sent_at_ms":1}') is None
    assert sent_at_ms(KEYRING, b"\xff") is None


def test_a_canary_is_genuine_while_the_old_password_is_valid() -> None:
    old, both = Keyring({"T": ["old"]}), Keyring({"T": ["new", "old"]})
    assert sent_at_ms(both, canary(old, NOW_MS)) == NOW_MS
    assert sent_at_ms(old, canary(both, NOW_MS)) is None


async def test_a_canary_comes_through_and_nothing_else_comes_of_it(
    tmp_path: Path, database: Database, database_url: str
) -> None:
    queue = SqliteQueue(tmp_path / "queue.db")
    await queue.start()
    sender = CanarySender(queue.publisher(), KEYRING, interval_s=3_600, now_ms=lambda: NOW_MS)
    await sender.send()
    forged = canary(Keyring({"T": ["guessed"]}), NOW_MS + 1_000_000)
    await queue.publisher().publish(Envelope(body=forged, content_type=CONTENT_TYPE), timeout_s=5)
    worker = Worker(queue=queue, database=database, keyring=KEYRING, now_ms=lambda: NOW_MS)
    running = asyncio.create_task(worker.run())
    async with asyncio.timeout(20):
        while worker.stats.canaries + worker.stats.buried < 2:  # noqa: ASYNC110  Nothing tells of it but the counters.
            await asyncio.sleep(0.01)
    worker.stop()
    await running
    assert (worker.stats.canaries, worker.stats.buried, worker.stats.applied) == (1, 1, 0)
    assert await select_all(database_url, "SELECT sent_at_ms FROM canaries") == [(NOW_MS,)]
    for table in ("callbacks", "events", "payments", "orders", "changes"):
        assert await select_all(database_url, f"SELECT count(*) FROM {table}") == [(0,)]  # noqa: S608
    verification = Verification(database, queue, Range())
    await verification.run()
    assert (list(verification.gaps), verification.account.dead_letters) == ([], {"open": 1})
    metrics = Metrics()
    survey = Survey(queue=queue, spool=None, database=database, interval_s=1, now_ms=lambda: NOW_MS + 2_500)
    survey.expose(metrics)
    assert scraped(metrics) == {}
    await survey.once()
    found = scraped(metrics)
    assert found["oplata_canary_age_seconds"] == 2.5
    assert (found["oplata_dead_letters/unreadable"], found["oplata_queue_messages/ready"]) == (1.0, 0.0)
    assert (found["oplata_database_up"], found["oplata_queue_up"], found["oplata_orders/paid"]) == (1.0, 1.0, 0.0)
    await database.stop()
    await queue.stop()
    await survey.once()
    found = scraped(metrics)
    assert (found["oplata_database_up"], found["oplata_queue_up"]) == (0.0, 0.0)
    assert "oplata_orders/paid" not in found
    assert found["oplata_canary_age_seconds"] == 2.5
    await database.start()
