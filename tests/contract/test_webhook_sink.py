"""Webhooks are signed as the published verifier wants them, and a receiver that misbehaves is told all in the end."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from itertools import cycle

import pytest
from standardwebhooks import Webhook

from oplata.errors import DeliveryFailed, DeliveryRefused, SettingsError
from oplata.feed.event import event_of
from oplata.feed.lane import Options
from oplata.feed.schedule import Schedule
from oplata.feed.sinks.signing import secret_key
from oplata.feed.sinks.webhook import WebhookSink
from oplata.feed.steering import Steering
from oplata.storage.engine import Database
from tests.changes import append, change, versions
from tests.databases import opened
from tests.receiver import ENDLESS, HANG, TAKEN_ENDLESSLY, Receiver, Request, receiving
from tests.sinks import assert_in_order, relaying

pytestmark = pytest.mark.anyio

OLD = "whsec_" + "b2xkLW9sZC1vbGQtb2xkLW9sZC1vbGQtb2xkLW9sZCE="
NEW = "whsec_" + "bmV3LW5ldy1uZXctbmV3LW5ldy1uZXctbmV3LW5ldyE="


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as receiver:
        yield receiver


async def _deliver(receiver: Receiver, *secrets: str, timeout_s: float = 2.0) -> None:
    sink = WebhookSink(receiver.url, secrets or (NEW,), timeout_s=timeout_s, headers={"x-shop": "7"})
    await sink.start()
    try:
        async with asyncio.timeout(timeout_s):
            await sink.deliver(event_of(17, change("заказ-1", status="paid")))
    finally:
        await sink.stop()


async def test_the_published_verifier_takes_what_we_sign(receiver: Receiver) -> None:
    await _deliver(receiver, NEW, OLD)
    (request,) = receiver.taken
    for secret in (OLD, NEW):
        assert Webhook(secret).verify(request.body, request.headers) == {
            "type": "order.paid",
            "timestamp": "2025-10-09T08:53:20.000Z",
            "data": {
                "changeId": 17,
                "orderId": "заказ-1",
                "version": 1,
                "status": "paid",
                "previousStatus": None,
                "amount": 19_900,
                "review": None,
                "changedAt": 1_760_000_000_000,
            },
        }
    with pytest.raises(Exception, match="signature"):
        Webhook(NEW).verify(request.body + b" ", request.headers)
    assert request.headers["x-shop"] == "7"


async def test_an_id_is_the_same_at_every_attempt_and_different_for_every_change(receiver: Receiver) -> None:
    await _deliver(receiver)
    await _deliver(receiver)
    assert receiver.taken[0].headers["webhook-id"] == receiver.taken[1].headers["webhook-id"]
    ids = {event_of(17, change()).id, event_of(18, change()).id, event_of(17, change(version=2)).id}
    assert len(ids) == 3


@pytest.mark.parametrize(
    ("status", "error"),
    [
        *((status, DeliveryFailed) for status in (302, 401, 404, 429, 500)),
        *((status, DeliveryRefused) for status in (400, 413, 422)),
    ],
)
async def test_what_an_answer_means(receiver: Receiver, status: int, error: type[Exception]) -> None:
    receiver.answer = lambda _request: status
    with pytest.raises(error, match=str(status)):
        await _deliver(receiver)
    # A redirect is not followed: the signature would go to whoever is there.
    assert [request.path for request in receiver.asked] == ["/hooks"]


async def test_an_answer_without_end_is_not_read_to_its_end(receiver: Receiver) -> None:
    receiver.answer = lambda _request: ENDLESS
    with pytest.raises(DeliveryFailed, match="answered 500: xxx"):
        await _deliver(receiver, timeout_s=5.0)


async def test_what_was_taken_is_taken_however_long_the_answer(receiver: Receiver) -> None:
    receiver.answer = lambda _request: TAKEN_ENDLESSLY
    await _deliver(receiver, timeout_s=5.0)


async def test_nobody_there_is_a_failure_that_does_not_tell_the_url(receiver: Receiver) -> None:
    await receiver.stop()
    with pytest.raises(DeliveryFailed) as failed:
        await _deliver(receiver)
    assert str(failed.value) == "the receiver could not be asked: ConnectError"


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_c2hvcnQ=", "whsec_not base64 at all, but long enough to be"])
def test_a_secret_that_is_none_is_refused(secret: str) -> None:
    with pytest.raises(SettingsError, match="openssl"):
        secret_key(secret)


async def test_a_receiver_that_fails_hangs_and_redirects_is_told_all_in_order(
    database_url: str, receiver: Receiver
) -> None:
    """Some hundred changes a second while it misbehaves; then it heals. Each order is told whole and in order."""
    rng, wrongs = random.Random(3), cycle([500, 302, 503, HANG, 404])
    ill = True

    def answer(_request: Request) -> int:
        return next(wrongs) if ill and rng.random() < 0.3 else 204

    receiver.answer = answer
    async with opened(database_url) as database:
        await database.migrate()
        options = Options(timeout_s=0.3, schedule=Schedule(delays_ms=(20, 50, 100), max_attempts=1000))
        sink = WebhookSink(receiver.url, (NEW,), timeout_s=0.3)
        async with relaying(database, ("crm", sink), options=options):
            for version in range(1, 11):
                await append(database, *(change(f"order-{number}", version) for number in range(40)))
                await asyncio.sleep(0.15)
            ill = False
            async with asyncio.timeout(40):
                while len({each.headers["webhook-id"] for each in receiver.taken}) < 400:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
        dead = [view.dead for view in await Steering(database).every()]
    told: dict[str, list[int]] = {}
    for request in receiver.taken:
        data = json.loads(request.body)["data"]
        told.setdefault(data["orderId"], []).append(data["version"])
    assert dead == [0]
    assert len(told) == 40
    for order_id in told:
        assert_in_order(told[order_id], 10)


async def test_a_refusal_is_kept_with_what_the_receiver_said(database: Database, receiver: Receiver) -> None:
    receiver.answer = lambda _request: 422
    await append(database, *versions("order-1", 1, 2))
    async with relaying(database, ("crm", WebhookSink(receiver.url, (NEW,), timeout_s=1))), asyncio.timeout(20):
        while True:
            async with database.unit_of_work(read_only=True) as uow:
                rows = await uow.deliveries.search(sink="crm", state="dead", order_id=None, limit=10)
            if len(rows) == 2:
                break
            await asyncio.sleep(0.05)
    assert {row.last_error for row in rows} == {"DeliveryRefused: the receiver answered 422: no"}
