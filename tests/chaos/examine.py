"""The verdict: every table is read past the program's code, and each fact is looked for by its own identity."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing

import asyncpg
import msgspec

from tests.chaos.bank import FORGED, Ledger
from tests.chaos.facts import Oracle, fact_of
from tests.chaos.subscriber import Subscriber

_SHOWN = 20

Row = tuple[object, ...]


class Findings(msgspec.Struct):
    """What is wrong, as sentences, and what was counted. ``applied`` are facts whose whole effect is in the tables."""

    applied: int = 0
    absorbed: int = 0
    dead_letters: int = 0
    lost: list[str] = []
    twice: list[str] = []
    unverified: list[str] = []
    wrong: list[str] = []

    @property
    def clean(self) -> bool:
        """Nothing was lost, applied twice, without a valid token, or otherwise wrong."""
        return not (self.lost or self.twice or self.unverified or self.wrong)

    def sentences(self) -> list[str]:
        """The first of each kind, for people."""
        kinds = {"lost": self.lost, "twice": self.twice, "unverified": self.unverified, "wrong": self.wrong}
        return [f"{kind}: {each}" for kind, found in kinds.items() for each in found[:_SHOWN]]


async def rows(url: str, query: str) -> AsyncIterator[Row]:
    """The rows of a query, some thousands at a time: a run may leave more than should be in memory at once."""
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"), timeout=10)) as connection:
            for row in connection.execute(query):
                yield tuple(row)
        return
    connection = await asyncpg.connect(url, timeout=10)
    try:
        async with connection.transaction():
            async for row in connection.cursor(query, prefetch=2000):
                yield tuple(row)
    finally:
        await connection.close()


async def deliveries(url: str) -> int:
    """How many messages the worker has applied, repeats included."""
    return await _one_number(url, "SELECT coalesce(sum(times_seen), 0) FROM callbacks")


async def changes_told(url: str) -> int:
    """How many changes the log holds."""
    return await _one_number(url, "SELECT count(*) FROM changes")


async def _one_number(url: str, query: str) -> int:
    # Read to the end: rows left halfway keep their connection, into whatever happens to the database next.
    ((total,),) = [row async for row in rows(url, query)]
    return int(str(total))


async def examine(url: str, oracle: Oracle, ledger: Ledger) -> Findings:
    """Hold the tables against what the bank was promised and what the seed says must be."""
    findings = Findings()
    if ledger.forged_accepted:
        findings.unverified.append(f"{ledger.forged_accepted} forged callbacks were answered OK")
    if ledger.genuine_refused:
        findings.wrong.append(f"genuine callbacks were refused {ledger.genuine_refused} times")
    ends = await _examine_archive(url, oracle, ledger, findings)
    await _examine_events(url, ends, findings)
    await _examine_payments(url, oracle, ledger, findings)
    await _examine_orders(url, oracle, ledger, findings)
    await _examine_changes(url, findings)
    async for reason, detail, order_id in rows(url, "SELECT reason, detail, order_id FROM dead_letters"):
        findings.dead_letters += 1
        findings.wrong.append(f"a dead letter of order {order_id}: {reason}, {detail}")
    return findings


async def examine_told(url: str, subscriber: Subscriber, findings: Findings) -> None:
    """Every change was told, at least once and in the order of its order, and nothing that is not in the log."""
    told = {each.change_id: each for each in subscriber.told}
    async for change_id, order_id, version, status in rows(url, "SELECT id, order_id, version, status FROM changes"):
        found = told.pop(int(str(change_id)), None)
        if found is None:
            findings.lost.append(f"the change {version} of order {order_id} was never told")
        elif found[1:] != (order_id, version, status):
            findings.wrong.append(f"the change {version} of order {order_id} to {status} was told as {found}")
    findings.unverified += [f"a change was told that is not in the log: {each}" for each in told.values()]
    findings.wrong += subscriber.out_of_order()
    if subscriber.forged:
        findings.wrong.append(f"the subscriber could not verify {subscriber.forged} webhooks")


async def _examine_archive(url: str, oracle: Oracle, ledger: Ledger, findings: Findings) -> dict[str, str]:
    """Check each callback against the bank's ledger; returns the digests, with the facts that they stand for."""
    digests: dict[str, str] = {}
    seen: dict[str, int] = {}
    async for digest, body, content_type, times in rows(
        url, "SELECT digest, body, content_type, times_seen FROM callbacks"
    ):
        assert isinstance(body, bytes)
        fact = fact_of(body, str(content_type))
        if oracle.tokens.get(fact.key) != fact.token:
            findings.unverified.append(f"a callback that the bank never signed was applied: {fact.fields}")
        if fact.key in seen:
            findings.twice.append(f"one fact stands in the archive as two: {fact.fields}")
        seen[fact.key] = int(str(times))
        digests[str(digest)] = fact.key
    for key, oks in ledger.oks.items():
        if seen.get(key, 0) < oks:
            when_s = ledger.last_ok_s[key]
            findings.lost.append(f"of {oks} OKs for a fact, the last at {when_s} s, {seen.get(key, 0)} were applied")
    findings.absorbed = sum(seen.values()) - len(seen)
    return digests


async def _examine_events(url: str, digests: dict[str, str], findings: Findings) -> None:
    told: set[str] = set()
    async for (digest,) in rows(url, "SELECT digest FROM events"):
        if str(digest) in told:
            findings.twice.append(f"the event {digest} was recorded twice")
        if str(digest) not in digests:
            findings.unverified.append(f"the event {digest} has no callback in the archive")
        told.add(str(digest))
    findings.lost += [f"the callback {digest} is in the archive and has no event" for digest in set(digests) - told]
    findings.applied = len(told & set(digests))


async def _examine_payments(url: str, oracle: Oracle, ledger: Ledger, findings: Findings) -> None:
    found: dict[tuple[str, str], dict[str, list[int]]] = {}
    async for terminal_key, payment_id, evidence in rows(
        url, "SELECT terminal_key, payment_id, evidence FROM payments"
    ):
        found[str(terminal_key), str(payment_id)] = json.loads(str(evidence))["seen"]
    for key in found.keys() - oracle.evidence.keys():
        findings.unverified.append(f"the payment {key} exists, and nobody told of it")
    if any(pending != FORGED for pending in ledger.pending):
        return  # What was never accepted need not be there, and which payments lack it is not worth telling.
    for key, expected in oracle.evidence.items():
        seen = found.get(key, {})
        if seen != expected:
            findings.wrong.append(f"the payment {key} was seen as {seen}, and must be {expected}")


async def _examine_orders(url: str, oracle: Oracle, ledger: Ledger, findings: Findings) -> None:
    found: dict[str, Row] = {}
    async for order_id, *state in rows(url, "SELECT order_id, amount_kopecks, status, review FROM orders"):
        found[str(order_id)] = tuple(state)
    for order_id in found.keys() - oracle.orders.keys():
        findings.unverified.append(f"the order {order_id} exists, and nobody spoke of it")
    if any(pending != FORGED for pending in ledger.pending):
        return
    for order_id, expected in oracle.orders.items():
        amount, status, review = found.get(order_id, (None, "absent", None))
        if (amount, status, review is not None) != (expected.amount_kopecks, expected.status, expected.review):
            findings.wrong.append(f"order {order_id} is {status} with {amount} and review {review}: {expected}")


async def _examine_changes(url: str, findings: Findings) -> None:
    """Each order's changes are numbered without a gap or a repeat, chain, and end in what the order is."""
    query = "SELECT order_id, version, previous_status, status, review FROM changes ORDER BY order_id, version"
    last: dict[str, Row] = {}
    async for order_id, version, previous, status, review in rows(url, query):
        before = last.get(str(order_id), (0, None, None))
        if version == before[0]:
            findings.twice.append(f"order {order_id} was told version {version} twice")
        elif (version, previous) != (int(str(before[0])) + 1, before[1]):
            findings.wrong.append(f"order {order_id}: version {version} follows {before[0]}")
        elif (status, review) == before[1:]:
            findings.twice.append(f"order {order_id} was told {status} twice in a row")
        last[str(order_id)] = (version, status, review)
    async for order_id, version, status, review in rows(url, "SELECT order_id, version, status, review FROM orders"):
        if version and last.get(str(order_id)) != (version, status, review):
            findings.wrong.append(f"order {order_id} is not what was told last of it")
