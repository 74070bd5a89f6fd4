"""What must be true after every step, read past the program's own code wherever that can be."""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from oplata.domain.events import Event, EventKind
from oplata.domain.order import judge
from oplata.domain.payment import Evidence, Payment, conclude, fold, moves_payment
from oplata.worker.backlog import CHANGE
from tests.simulation import oracle, shopkeeper
from tests.simulation.bank import PASSWORDS
from tests.simulation.database import CURSED

REASONS_OF_POISON = ("unreadable", "not_authentic")
TOLD = (
    "SELECT id, order_id, version, status, previous_status, amount_kopecks, review, changed_at_ms FROM changes "
    "ORDER BY id"
)


class Wrong(Exception):
    """Something that must never be is."""


class Ledger:
    """The promises that were made: what the bank heard OK for, and what a stranger's publish was confirmed for."""

    def __init__(self) -> None:
        self.promised: dict[bytes, str] = {}
        self.poison: dict[bytes, str] = {}
        self.amounts: dict[str, int | None] = {}
        self.announced: dict[tuple[str, int], str] = {}


class Checkers:
    """``held`` says whether a body lies in the queue, on a rung, in a spool, or is held by a worker."""

    def __init__(self, path: Path, ledger: Ledger, held: Callable[[], Callable[[bytes], bool]]) -> None:
        self._path = path
        self.open()
        self._ledger = ledger
        self._held = held
        self._identities: dict[bytes, str] = {}
        self._facts: dict[str, oracle.Fact | None] = {}
        self._events: dict[str, Event] = {}
        self._archived: dict[str, bytes] = {}
        self._told: list[tuple[Any, ...]] = []
        self._buried: dict[bytes, set[str]] = defaultdict(set)
        self._kept: set[str] = set()
        self.orders: dict[str, Any] = {}
        self.may_exhaust = False
        self.may_give_up = False
        self.runs = 0

    def open(self) -> None:
        """Look at the file that is there now."""
        self._connection = sqlite3.connect(self._path)
        self._connection.row_factory = sqlite3.Row

    def close(self) -> None:
        self._connection.close()

    def after_commit(self) -> None:
        """All that the tables must agree on."""
        self.runs += 1
        self._check_archive()
        self._check_events()
        payments = self._check_payments()
        self._check_orders(payments)
        self._check_changes()
        self._check_dead_letters()
        if said := shopkeeper.wrong(self._rows):
            raise Wrong(said)

    def outstanding(self) -> int:
        """How many changes the shop's handler has yet to see."""
        return shopkeeper.outstanding(self._rows)

    def nothing_missing(self) -> None:
        """Every promise lies somewhere, or is kept."""
        ledger, held = self._ledger, None
        for body, content_type in ledger.promised.items():
            if self.identity(body, content_type) not in self._kept and body not in self._buried:
                held = held or self._held()
                if not held(body):
                    raise Wrong(f"a callback that was answered OK is nowhere: {body!r}")
        for body in ledger.poison:
            if body not in self._buried:
                held = held or self._held()
                if not held(body):
                    raise Wrong(f"a message that cannot be applied is nowhere: {body!r}")

    def identity(self, body: bytes, content_type: str) -> str:
        """What a body tells, whatever its spelling."""
        if body not in self._identities:
            self._identities[body] = oracle.identity(body, content_type)
        return self._identities[body]

    def expected(self) -> dict[str, oracle.Ending]:
        """What the orders have to be by the callbacks in the archive."""
        facts = [each for each in self._facts.values() if each is not None]
        return oracle.endings(self._ledger.amounts, facts)

    def to_redrive(self) -> list[tuple[bytes, str]]:
        """Genuine callbacks in the dead letters that an operator would send on their way again."""
        found = self._rows("SELECT body, content_type, reason FROM dead_letters ORDER BY id")
        return [
            (bytes(row["body"]), row["content_type"])
            for row in found
            if row["reason"] in ("given_up_by_queue", "attempts_exhausted", "handler_failed")
            and oracle.is_genuine(bytes(row["body"]), row["content_type"], PASSWORDS)
            and oracle.identity(bytes(row["body"]), row["content_type"]) not in self._kept
        ]

    def unkept(self) -> list[str]:
        """Promises whose callback is not in the archive, but for those that no database takes."""
        ledger = self._ledger
        return sorted(
            {
                self.identity(body, content_type)
                for body, content_type in ledger.promised.items()
                if CURSED.encode() not in body and self.identity(body, content_type) not in self._kept
            }
        )

    def _rows(self, query: str) -> list[Any]:
        return self._connection.execute(query).fetchall()

    def _check_archive(self) -> None:
        found: dict[str, bytes] = {}
        for row in self._rows("SELECT digest, body, content_type, times_seen FROM callbacks"):
            digest, body = row["digest"], bytes(row["body"])
            found[digest] = body
            if digest in self._archived:
                continue
            if not oracle.is_genuine(body, row["content_type"], PASSWORDS):
                raise Wrong(f"the archive holds what the bank did not sign: {body!r}")
            identity = self.identity(body, row["content_type"])
            if identity in self._kept:
                raise Wrong(f"the archive holds one fact twice: {body!r}")
            self._kept.add(identity)
            self._facts[digest] = oracle.fact(body, row["content_type"])
        for digest, body in self._archived.items():
            if found.get(digest) != body:
                raise Wrong(f"the archive lost or changed {body!r}")
        self._archived = found

    def _check_events(self) -> None:
        digests = set()
        for row in self._rows("SELECT * FROM events"):
            digests.add(row["digest"])
            if row["digest"] in self._events or row["digest"] not in self._archived:
                continue
            event = _event(row)
            self._events[event.digest] = event
            fact = self._facts[event.digest]
            said = (event.terminal_key, event.payment_id, event.order_id, event.status, event.amount_kopecks)
            if fact is not None and said != fact[:5]:
                raise Wrong(f"an event says {said} and the bank said {fact}")
        if digests != set(self._archived):
            raise Wrong("events and archive hold different callbacks")

    def _check_payments(self) -> dict[tuple[str, str], Payment]:
        by_key: dict[tuple[str, str], list[Event]] = defaultdict(list)
        for event in self._events.values():
            if moves_payment(event):
                by_key[event.terminal_key, event.payment_id or ""].append(event)
        payments: dict[tuple[str, str], Payment] = {}
        rows = {(row["terminal_key"], row["payment_id"]): row for row in self._rows("SELECT * FROM payments")}
        if set(rows) != set(by_key):
            raise Wrong(f"payments and events differ: {sorted(set(rows) ^ set(by_key))}")
        for key, events in by_key.items():
            evidence = fold(events)
            payment = payments[key] = conclude(evidence)
            row = rows[key]
            stored = (row["order_id"], row["status"], row["amount_kopecks"], row["review"])
            refolded = (payment.order_id, payment.status, payment.amount_kopecks, payment.review)
            if stored != refolded or msgspec.json.decode(row["evidence"], type=Evidence) != evidence:
                raise Wrong(f"payment {key} is stored as {stored} and its events fold to {refolded}")
        return payments

    def _check_orders(self, payments: dict[tuple[str, str], Payment]) -> None:
        by_order: dict[str, dict[tuple[str, str], Payment]] = defaultdict(dict)
        for key, payment in payments.items():
            by_order[payment.order_id or ""][key] = payment
        expected = self.expected()
        self.orders = {row["order_id"]: row for row in self._rows("SELECT * FROM orders")}
        paid = 0
        for order_id, row in self.orders.items():
            verdict = judge(row["amount_kopecks"], by_order[order_id])
            if (row["status"], row["review"]) != (verdict.status.value, verdict.review):
                raise Wrong(f"order {order_id} is {row['status']} and its payments make it {verdict}")
            registered = self._ledger.amounts.get(order_id)
            if row["amount_kopecks"] not in (None, registered):
                raise Wrong(f"order {order_id} has the amount {row['amount_kopecks']} and the shop said {registered}")
            if row["amount_kopecks"] is not None:
                ending = expected[order_id]
                if (row["status"], row["review"] is not None) != ending:
                    raise Wrong(f"order {order_id} is {row['status']} ({row['review']}) and has to be {ending}")
            paid += row["amount_kopecks"] if row["status"] == "paid" else 0
        self._check_balance(paid)

    def _check_balance(self, paid: int) -> None:
        """No kopeck is counted as paid that the bank did not confirm, nor twice."""
        confirmed: dict[str, set[int]] = defaultdict(set)
        for fact in self._facts.values():
            if fact is not None and fact.status == "CONFIRMED" and fact.amount is not None:
                confirmed[fact.order].add(fact.amount)
        covered = sum(
            row["amount_kopecks"]
            for order_id, row in self.orders.items()
            if row["status"] == "paid" and row["amount_kopecks"] in confirmed[order_id]
        )
        if paid != covered:
            raise Wrong(f"orders are paid with {paid} kopecks, of which the bank confirmed {covered}")

    def _check_changes(self) -> None:
        told = [tuple(row) for row in self._rows(TOLD)]
        if told[: len(self._told)] != self._told:
            raise Wrong("the change log was rewritten, or something was put in before its end")
        self._told = told
        last: dict[str, tuple[int, str | None, str | None]] = {}
        for _, order_id, version, status, previous, _, review, _ in told:
            before = last.get(order_id, (0, None, None))
            if (version, previous) != (before[0] + 1, before[1]):
                raise Wrong(f"order {order_id}: change {version} ({previous} -> {status}) follows {before}")
            if (status, review) == before[1:]:
                raise Wrong(f"order {order_id}: change {version} changes nothing")
            last[order_id] = (version, status, review)
        for order_id, row in self.orders.items():
            state = (row["version"], row["status"] if row["version"] else None, row["review"])
            if last.pop(order_id, (0, None, None)) != state:
                raise Wrong(f"order {order_id} is {state} and its last change says otherwise")
        if last:
            raise Wrong(f"the change log tells of orders that are not there: {sorted(last)}")
        for (order_id, version), status in self._ledger.announced.items():
            if not any(row[1:4] == (order_id, version, status) for row in told):
                raise Wrong(f"change {version} of order {order_id} was announced and is not in the log")

    def _check_dead_letters(self) -> None:
        self._buried.clear()
        for row in self._rows("SELECT body, content_type, reason FROM dead_letters"):
            body, reason = bytes(row["body"]), row["reason"]
            self._buried[body].add(reason)
            genuine = oracle.is_genuine(body, row["content_type"], PASSWORDS)
            if reason in REASONS_OF_POISON:
                belongs = not genuine
            elif reason == "rejected_by_database":
                belongs = genuine and CURSED.encode() in body
            elif reason == "attempts_exhausted":
                belongs = genuine and self.may_exhaust
            elif reason == "handler_failed":
                belongs = (genuine or row["content_type"] == CHANGE) and self.may_exhaust
            else:
                belongs = reason == "given_up_by_queue" and self.may_give_up
            if not belongs:
                raise Wrong(f"a dead letter that should not be one, for {reason}: {body!r}")


def assert_told_by_hand(orders: dict[str, Any], told: Sequence[Any]) -> None:
    """The stories whose endings were written down by hand end as it is written."""
    for order in told:
        row = orders.get(order.order_id)
        found = None if row is None else (row["status"], row["review"] is not None)
        if found != (order.ends.value, order.review):
            raise Wrong(f"the story «{order.story}» of {order.order_id} ended as {found}, not {order.ends.value}")


def _event(row: Any) -> Event:
    return Event(
        digest=row["digest"],
        kind=EventKind(row["kind"]),
        terminal_key=row["terminal_key"],
        order_id=row["order_id"],
        payment_id=row["payment_id"],
        status=row["status"],
        success=None if row["success"] is None else bool(row["success"]),
        amount_kopecks=row["amount_kopecks"],
        details=json.loads(row["details"]),
    )
