"""A queue in a SQLite file: every operation, synchronous. Nothing here knows of threads or of an event loop.

A message is ``ready``, waits for its time in ``retry``, is ``leased`` to a seat, or is ``dead`` (or ``dead leased``).
Operations run inside a transaction that ``lane.py`` shares among all who wait for one.

Delivery limit: what counts is a seat that died, or fell silent, while it held the message. As on RabbitMQ's quorum
queues with a limit of N, a message is delivered N + 1 times before it is dead. Handing a message back (``release``, or
a consumer that closes) does not count, as ``basic.nack`` does not on RabbitMQ 4.3; ``retry`` begins a new count.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from random import Random

import msgspec

from oplata.errors import OplataError, QueueUnavailable
from oplata.queue.base import Depth
from oplata.queue.envelope import ATTEMPT_HEADER, Delivery
from oplata.queue.sqlite import file as sqlite_file
from oplata.queue.sqlite.publishing import Row, append, handed_over, to_delivery, to_row
from oplata.queue.sqlite.seat import Seat, is_taken, sweep_seats, take_seat

CLOCK_SLACK_MS = 1_000
"""A time this much ahead of the clock was written before the clock was set back."""

PROBE_INTERVAL_MS = 200
"""How often the other seats are looked at."""

PROMOTED_AT_ONCE = 1_000
"""How many messages whose delay is over become ready in one transaction."""

_SELECT_READY = """
SELECT id, leases + 1, redelivered, dead_reason, message_id, content_type, headers, body
FROM messages WHERE state = ? AND due_at_ms = 0 ORDER BY id LIMIT ?
"""

# A batch is one value, a JSON array: a statement for each message would have to win Python's lock back each time.
_LEASE = """
UPDATE messages SET state = ?, seat = ?, leases = leases + 1 WHERE id IN (SELECT value FROM json_each(?))
"""

_ACK = "DELETE FROM messages WHERE seat = ? AND leases = ? AND id IN (SELECT value FROM json_each(?))"

_LAST_ID = "SELECT seq FROM sqlite_sequence WHERE name = 'messages'"

_RELEASE = """
UPDATE messages SET state = CASE state WHEN 'leased' THEN 'ready' ELSE 'dead' END, seat = NULL, redelivered = 1
WHERE state IN ('leased', 'dead leased') AND seat = ?
"""

_RELEASE_ONE = _RELEASE + " AND id = ? AND leases = ?"

_RETRY = """
UPDATE messages SET state = 'retry', due_at_ms = ?, set_at_ms = ?, headers = ?,
seat = NULL, redelivered = 0, deaths = 0, dead_reason = ''
WHERE id = ? AND seat = ? AND leases = ?
"""

_COUNT_DEATHS = """
UPDATE messages SET deaths = deaths + 1, redelivered = 1, seat = NULL,
state = CASE WHEN deaths + 1 > ?1 THEN 'dead' ELSE 'ready' END,
dead_reason = CASE WHEN deaths + 1 > ?1 THEN 'delivery_limit' ELSE '' END
WHERE state = 'leased' AND seat = ?2
"""

_PROMOTE = """
UPDATE messages SET state = 'ready', due_at_ms = 0 WHERE id IN
(SELECT id FROM messages WHERE state = 'retry' AND due_at_ms <= ? ORDER BY due_at_ms LIMIT ?)
"""

_CLOCK_WAS_SET_BACK = """
UPDATE messages SET due_at_ms = ?1 + (due_at_ms - set_at_ms), set_at_ms = ?1
WHERE state = 'retry' AND set_at_ms > ?2
"""

_WANTS = """
SELECT EXISTS (SELECT 1 FROM messages WHERE state = 'ready')
OR EXISTS (SELECT 1 FROM messages WHERE state = 'retry' AND due_at_ms <= ?)
OR EXISTS (SELECT 1 FROM messages WHERE state = 'retry' AND set_at_ms > ?)
"""

_DEPTH = """
SELECT CASE WHEN state = 'retry' AND due_at_ms <= ? THEN 'ready' ELSE state END AS place, count(*)
FROM messages GROUP BY place
"""

_RENEW = """
INSERT INTO seats (name, renewed_at_ms, lease_ms) VALUES (?, ?, ?)
ON CONFLICT (name) DO UPDATE SET renewed_at_ms = excluded.renewed_at_ms
"""


def raised_headers(delivery: Delivery) -> bytes:
    """The headers that a message carries into its next attempt. Raises ``DataRejected``."""
    headers = {**delivery.envelope.headers, ATTEMPT_HEADER: delivery.attempt}
    return to_row(msgspec.structs.replace(delivery.envelope, headers=headers)).headers


class SqliteStore:
    """One process's hold on the file: a connection and, once it takes messages, a seat."""

    def __init__(
        self,
        path: Path,
        *,
        delivery_limit: int,
        lease_ms: int,
        now_ms: Callable[[], int],
        rng: Random,
        max_bytes: int | None = None,
        min_free_bytes: int = 0,
    ) -> None:
        self.path = path
        self._delivery_limit = delivery_limit
        self._lease_ms = lease_ms
        self._now_ms = now_ms
        self._rng = rng
        self._max_bytes = max_bytes
        self._min_free_bytes = min_free_bytes
        self._connection: sqlite3.Connection | None = None
        self._inode = 0
        self._seat: Seat | None = None
        self._probed_at_ms: int | None = None

    # The connection.

    def open(self) -> sqlite3.Connection:
        """The connection to the file that is at the path now. Raises ``sqlite3.Error``, ``OSError``, ``Permanent``."""
        if self._connection is not None and sqlite_file.inode(self.path) == self._inode:
            return self._connection
        self.disconnect()
        self._connection = sqlite_file.connect(self.path)
        self._inode = sqlite_file.inode(self.path)
        if self._seat is None:
            sweep_seats(self.path)
        return self._connection

    def _current(self) -> sqlite3.Connection:
        """The connection that the transaction was begun on: what is at the path was looked at then."""
        return self._connection or self.open()

    def disconnect(self) -> None:
        """Close the connection; the next operation opens another. The leases stay."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def leave(self) -> None:
        """Hand back every lease, give up the seat and close."""
        try:
            if self._seat is not None:
                connection = self.open()
                connection.execute("BEGIN IMMEDIATE")
                connection.execute(_RELEASE, (self._seat.name,))
                connection.execute("DELETE FROM seats WHERE name = ?", (self._seat.name,))
                connection.execute("COMMIT")
        finally:
            seat, self._seat = self._seat, None
            self.disconnect()
            if seat is not None:
                seat.leave()

    def abandon(self) -> None:
        """Let go of everything and say nothing, as a killed process would. For simulations."""
        seat, self._seat = self._seat, None
        self.disconnect()
        if seat is not None:
            seat.abandon()

    # Operations; each runs inside a transaction of the caller.

    def publish(self, row: Row, *, hands_over: bool = False) -> Delivery | None:
        """Append a message. Raises ``QueueUnavailable`` when there is no room. See ``publish_all``."""
        [outcome] = self.publish_all([row], hand_over=int(hands_over))
        if isinstance(outcome, OplataError):
            raise outcome
        return outcome

    def publish_all(self, rows: Sequence[Row], *, hand_over: int) -> list[Delivery | OplataError | None]:
        """Append messages, and lease up to ``hand_over`` of them, the first ones, if this store has a seat.

        Returns the delivery of each that is leased, None for each other, and ``QueueUnavailable`` for those for which
        there is no room. The limits leave room on purpose: to take a message and to delete it needs some too, so a file
        or a disk that publishers fill to the last byte could not be emptied.
        """
        connection, now_ms = self._current(), self._now_ms()
        fitting, refusal = self._fitting(connection, rows)
        leased = fitting[: hand_over if self._seat is not None else 0]
        first_id = (connection.execute(_LAST_ID).fetchone() or (0,))[0] + 1
        if leased:
            append(connection, leased, first_id=first_id, now_ms=now_ms, seat=self._renewed_seat(connection, now_ms))
        append(connection, fitting[len(leased) :], first_id=first_id + len(leased), now_ms=now_ms, seat=None)
        outcomes: list[Delivery | OplataError | None] = [
            handed_over(row, first_id + number) for number, row in enumerate(leased)
        ]
        outcomes += [None] * (len(fitting) - len(leased))
        return outcomes + [refusal] * (len(rows) - len(fitting))

    def wants(self, *, dead: bool) -> bool:
        """Whether ``lease`` would find something; reads only."""
        connection, now_ms = self.open(), self._now_ms()
        if dead:
            found = connection.execute("SELECT EXISTS (SELECT 1 FROM messages WHERE state = 'dead')").fetchone()
        else:
            found = connection.execute(_WANTS, (now_ms, now_ms + CLOCK_SLACK_MS)).fetchone()
        return bool(found[0]) or bool(self._lost_seats(connection, now_ms))

    def lease(self, limit: int, *, dead: bool) -> list[Delivery]:
        """Take up to ``limit`` messages, oldest first."""
        connection, now_ms = self._current(), self._now_ms()
        self._probed_at_ms = None
        for name in self._lost_seats(connection, now_ms):
            self._free(connection, name)
        connection.execute(_CLOCK_WAS_SET_BACK, (now_ms, now_ms + CLOCK_SLACK_MS))
        connection.execute(_PROMOTE, (now_ms, PROMOTED_AT_ONCE))
        rows = connection.execute(_SELECT_READY, ("dead" if dead else "ready", limit)).fetchall()
        if rows:
            state, seat = ("dead leased" if dead else "leased"), self._renewed_seat(connection, now_ms)
            connection.execute(_LEASE, (state, seat, _array(row[0] for row in rows)))
        return [to_delivery(row) for row in rows]

    def ack(self, deliveries: Iterable[Delivery]) -> None:
        """Delete those that this seat still holds."""
        if self._seat is not None:
            tags: dict[int, list[int]] = {}
            for delivery in deliveries:
                tags.setdefault(delivery.generation, []).append(delivery.tag)
            for generation, of_generation in tags.items():
                self._current().execute(_ACK, (self._seat.name, generation, _array(of_generation)))

    def release(self, deliveries: Iterable[Delivery]) -> None:
        """Hand back those that this seat still holds; their attempt and their deaths stay."""
        if self._seat is not None:
            values = [(self._seat.name, delivery.tag, delivery.generation) for delivery in deliveries]
            self._current().executemany(_RELEASE_ONE, values)

    def retry(self, delivery: Delivery, *, headers: bytes, delay_ms: int) -> None:
        """Put one that this seat still holds aside for ``delay_ms``, with these headers."""
        if self._seat is not None:
            now_ms = self._now_ms()
            values = (now_ms + delay_ms, now_ms, headers, delivery.tag, self._seat.name, delivery.generation)
            self._current().execute(_RETRY, values)

    def renew(self) -> None:
        """Say that this seat is alive."""
        if self._seat is not None:
            self._renewed_seat(self._current(), self._now_ms())

    def depth(self) -> Depth:
        """Count the messages. One whose delay is over counts as ready."""
        places = dict(self.open().execute(_DEPTH, (self._now_ms(),)).fetchall())
        return Depth(
            ready=places.get("ready", 0),
            unacked=places.get("leased", 0),
            retry=places.get("retry", 0),
            dead=places.get("dead", 0) + places.get("dead leased", 0),
        )

    def oldest_age_ms(self) -> int | None:
        """How long the message that came first has been in its place; None where there is none."""
        (since_ms,) = self.open().execute("SELECT set_at_ms FROM messages ORDER BY id LIMIT 1").fetchone() or (None,)
        return None if since_ms is None else max(0, self._now_ms() - since_ms)

    def has_space(self) -> bool:
        """Whether a publish would find space."""
        return self._room_bytes(self.open())[0] > 0

    def used_bytes(self) -> int:
        """How many bytes of the file are in use."""
        return sqlite_file.used_bytes(self.open())

    def prove_writable(self) -> str:
        """Change nothing, but write and sync it; return the journal mode that the file really has."""
        connection = self.open()
        sqlite_file.rewrite_version(connection)
        return str(connection.execute("PRAGMA journal_mode").fetchone()[0])

    def tidy(self) -> bool:
        """Give the disk back some of what a backlog took; true when that was all. Runs outside a transaction."""
        return sqlite_file.shrink(self.open())

    def _fitting(self, connection: sqlite3.Connection, rows: Sequence[Row]) -> tuple[Sequence[Row], OplataError]:
        """The first of these for which there is room, and what is to be said to the others."""
        room_bytes, refused = self._room_bytes(connection)
        for number, row in enumerate(rows):
            if room_bytes <= 0:
                rows = rows[:number]
                break
            room_bytes -= row.size
        return rows, QueueUnavailable(refused)

    def _room_bytes(self, connection: sqlite3.Connection) -> tuple[float, str]:
        """How much publishers may still write, and what is to be said to those for whom that is too little."""
        full = f"The SQLite queue {self.path} has no room: it holds its {self._max_bytes} bytes."
        scarce = f"The SQLite queue {self.path} has no room: under {self._min_free_bytes} bytes of its disk are free."
        free_bytes = sqlite_file.free_disk_bytes(self.path) - self._min_free_bytes + 1
        if self._max_bytes is None:
            return free_bytes, scarce
        left_bytes = self._max_bytes - sqlite_file.used_bytes(connection)
        return (left_bytes, full) if left_bytes < free_bytes else (free_bytes, scarce)

    # Seats.

    def _renewed_seat(self, connection: sqlite3.Connection, now_ms: int) -> str:
        if self._seat is None:
            self._seat = take_seat(self.path, self._rng)
        connection.execute(_RENEW, (self._seat.name, now_ms, self._lease_ms))
        return self._seat.name

    def _lost_seats(self, connection: sqlite3.Connection, now_ms: int) -> list[str]:
        if self._probed_at_ms is not None and abs(now_ms - self._probed_at_ms) < PROBE_INTERVAL_MS:
            return []
        self._probed_at_ms = now_ms
        own = self._seat.name if self._seat is not None else ""
        seats = connection.execute("SELECT name, renewed_at_ms, lease_ms FROM seats WHERE name <> ?", (own,)).fetchall()
        return [
            name
            for name, renewed_at_ms, lease_ms in seats
            if not is_taken(self.path, name) or _is_silent(renewed_at_ms, lease_ms, now_ms)
        ]

    def _free(self, connection: sqlite3.Connection, name: str) -> None:
        """Take the messages of a seat back, or give up those that have seen too many seats die."""
        connection.execute(_COUNT_DEATHS, (self._delivery_limit, name))
        connection.execute(_RELEASE, (name,))
        connection.execute("DELETE FROM seats WHERE name = ?", (name,))


def _is_silent(renewed_at_ms: int, lease_ms: int, now_ms: int) -> bool:
    """Whether the lease ran out. One renewed in the future was renewed before the clock was set back: it counts as
    silent only when the clock is back by more than the lease, and then costs a redelivery."""
    return abs(now_ms - renewed_at_ms) >= lease_ms


def _array(ids: Iterable[int]) -> str:
    return msgspec.json.encode(list(ids)).decode()
