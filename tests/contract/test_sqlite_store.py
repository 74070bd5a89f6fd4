"""The store against a model in memory: whatever happens in whatever order, both hold the same messages."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from oplata.queue.base import Depth
from oplata.queue.envelope import Delivery, Envelope
from oplata.queue.sqlite.lane import Publishing, transact
from oplata.queue.sqlite.publishing import to_row
from oplata.queue.sqlite.store import CLOCK_SLACK_MS, SqliteStore, raised_headers

DELIVERY_LIMIT = 2
LEASE_MS = 5_000

stores = st.integers(0, 1)
picks = st.integers(0, 50)


class Message(msgspec.Struct):
    """What the model knows of one message."""

    body: bytes
    state: str = "ready"
    due_at_ms: int = 0
    set_at_ms: int = 0
    holder: tuple[int, int] = (-1, -1)
    leases: int = 0
    deaths: int = 0
    attempt: int = 1
    redelivered: bool = False


class StoreAgainstModel(RuleBasedStateMachine):
    """Two processes over one file. Either may be killed at any time; the clock goes where it wants."""

    def __init__(self) -> None:
        super().__init__()
        self._directory = tempfile.TemporaryDirectory()
        self._path = Path(self._directory.name) / "queue.db"
        self._rng = Random(1)
        self._now_ms = 1_000_000_000
        self._stores = [self._new_store(), self._new_store()]
        self._renewed_at_ms: list[int | None] = [None, None]
        self._messages: dict[int, Message] = {}
        self._published = 0
        self._deliveries: list[tuple[int, Delivery]] = []

    def teardown(self) -> None:
        for store in self._stores:
            store.leave()
        self._directory.cleanup()

    # What happens.

    @rule(store=stores, body=st.binary(max_size=20))
    def publish(self, store: int, body: bytes) -> None:
        self._write(store, partial(SqliteStore.publish, row=to_row(Envelope(body=body))))
        self._published += 1
        self._messages[self._published] = Message(body=body)

    @rule(store=stores, bodies=st.lists(st.binary(max_size=20), min_size=2, max_size=4), hand_over=st.integers(0, 5))
    def publish_together(self, store: int, bodies: list[bytes], hand_over: int) -> None:
        """Some of them straight into the hands of the publisher's own consumer, which only one with a seat has."""
        operations = [Publishing(to_row(Envelope(body=body))) for body in bodies]
        for operation in operations[:hand_over]:
            operation.hands_over = True
        outcomes, _ = transact(self._stores[store], [], operations)
        for body, outcome in zip(bodies, outcomes, strict=True):
            self._published += 1
            message = self._messages[self._published] = Message(body=body)
            if outcome is not None:
                assert isinstance(outcome, Delivery)
                message.leases, message.state, message.holder = 1, "leased", (store, 1)
                assert _seen(outcome) == (self._published, 1, 1, False, body)
                self._deliveries.append((store, outcome))
        handed_over = sum(outcome is not None for outcome in outcomes)
        assert handed_over in (0, min(hand_over, len(bodies)))
        if handed_over:
            self._renewed_at_ms[store] = self._now_ms

    @rule(store=stores, limit=st.integers(1, 4))
    def lease(self, store: int, limit: int) -> None:
        expected = self._model_lease(store, limit)
        deliveries = self._write(store, partial(SqliteStore.lease, limit=limit, dead=False))
        assert isinstance(deliveries, list)
        assert [_seen(delivery) for delivery in deliveries] == expected
        self._deliveries += [(store, delivery) for delivery in deliveries]

    @precondition(lambda self: self._deliveries)
    @rule(pick=picks)
    def ack(self, pick: int) -> None:
        store, delivery = self._pick(pick)
        self._write(store, partial(SqliteStore.ack, deliveries=[delivery]))
        if self._is_held(store, delivery):
            del self._messages[delivery.tag]

    @precondition(lambda self: self._deliveries)
    @rule(pick=picks)
    def release(self, pick: int) -> None:
        store, delivery = self._pick(pick)
        self._write(store, partial(SqliteStore.release, deliveries=[delivery]))
        if self._is_held(store, delivery):
            message = self._messages[delivery.tag]
            message.state, message.redelivered = "ready", True

    @precondition(lambda self: self._deliveries)
    @rule(pick=picks, delay_ms=st.integers(0, 10_000))
    def retry(self, pick: int, delay_ms: int) -> None:
        store, delivery = self._pick(pick)
        headers = raised_headers(delivery)
        self._write(store, partial(SqliteStore.retry, delivery=delivery, headers=headers, delay_ms=delay_ms))
        if self._is_held(store, delivery):
            message = self._messages[delivery.tag]
            message.state, message.redelivered, message.deaths = "retry", False, 0
            message.due_at_ms, message.set_at_ms = self._now_ms + delay_ms, self._now_ms
            message.attempt = delivery.attempt + 1

    @rule(store=stores)
    def renew(self, store: int) -> None:
        self._write(store, SqliteStore.renew)
        if self._renewed_at_ms[store] is not None:
            self._renewed_at_ms[store] = self._now_ms

    @rule(store=stores)
    def kill(self, store: int) -> None:
        """Its messages are nobody's until somebody looks, so let the other one look at once."""
        self._stores[store].abandon()
        self._stores[store] = self._new_store()
        self._model_free(store)
        self._deliveries = [(holder, delivery) for holder, delivery in self._deliveries if holder != store]
        self.lease(1 - store, 1)

    @rule(store=stores)
    def leave(self, store: int) -> None:
        self._stores[store].leave()
        self._renewed_at_ms[store] = None
        for message in self._held_by(store):
            message.state, message.redelivered = "ready", True

    @rule(ms=st.sampled_from([1, 500, LEASE_MS - 1, LEASE_MS, 60_000, -1, -900, -CLOCK_SLACK_MS - 1, -3_600_000]))
    def set_clock(self, ms: int) -> None:
        self._now_ms += ms

    # What must hold.

    @invariant()
    def the_same_messages_lie_in_the_same_places(self) -> None:
        def count(*states: str) -> int:
            return sum(self._place(message) in states for message in self._messages.values())

        expected = Depth(ready=count("ready"), unacked=count("leased"), retry=count("retry"), dead=count("dead"))
        assert self._stores[0].depth() == expected

    @invariant()
    def what_is_ready_is_noticed(self) -> None:
        if any(self._place(message) == "ready" for message in self._messages.values()):
            assert self._stores[1].wants(dead=False)

    # The model.

    def _model_lease(self, store: int, limit: int) -> list[tuple[int, int, int, bool, bytes]]:
        self._model_expire(1 - store)
        for message in self._messages.values():
            if message.state == "retry" and message.set_at_ms > self._now_ms + CLOCK_SLACK_MS:
                message.due_at_ms += self._now_ms - message.set_at_ms
                message.set_at_ms = self._now_ms
            message.state = self._place(message)
        taken = [(tag, message) for tag, message in self._messages.items() if message.state == "ready"][:limit]
        for _, message in taken:
            message.leases += 1
            message.state, message.holder = "leased", (store, message.leases)
        if taken:
            self._renewed_at_ms[store] = self._now_ms
        return [(tag, one.leases, one.attempt, one.redelivered, one.body) for tag, one in taken]

    def _model_expire(self, store: int) -> None:
        renewed_at_ms = self._renewed_at_ms[store]
        if renewed_at_ms is not None and abs(self._now_ms - renewed_at_ms) >= LEASE_MS:
            self._model_free(store, seat_stays=True)

    def _model_free(self, store: int, *, seat_stays: bool = False) -> None:
        for message in self._held_by(store):
            message.deaths += 1
            message.redelivered = True
            message.state = "dead" if message.deaths > DELIVERY_LIMIT else "ready"
        # A process that was only silent still has its seat, and puts it back into the table when it renews it.
        self._renewed_at_ms[store] = -LEASE_MS if seat_stays else None

    def _held_by(self, store: int) -> list[Message]:
        return [one for one in self._messages.values() if one.state == "leased" and one.holder[0] == store]

    def _is_held(self, store: int, delivery: Delivery) -> bool:
        message = self._messages.get(delivery.tag)
        return message is not None and message.state == "leased" and message.holder == (store, delivery.generation)

    def _place(self, message: Message) -> str:
        return "ready" if message.state == "retry" and message.due_at_ms <= self._now_ms else message.state

    # The machinery.

    def _new_store(self) -> SqliteStore:
        return SqliteStore(
            self._path, delivery_limit=DELIVERY_LIMIT, lease_ms=LEASE_MS, now_ms=lambda: self._now_ms, rng=self._rng
        )

    def _write(self, store: int, operation: Callable[[SqliteStore], object]) -> object:
        [outcome], _ = transact(self._stores[store], [], [operation])
        assert not isinstance(outcome, Exception)
        return outcome

    def _pick(self, pick: int) -> tuple[int, Delivery]:
        return self._deliveries[pick % len(self._deliveries)]


def _seen(delivery: Delivery) -> tuple[int, int, int, bool, bytes]:
    return delivery.tag, delivery.generation, delivery.attempt, delivery.redelivered, delivery.envelope.body


TestStoreAgainstModel = StoreAgainstModel.TestCase
TestStoreAgainstModel.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)
