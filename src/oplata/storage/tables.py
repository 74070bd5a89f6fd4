"""The tables, for both databases. ``migrations/`` creates them; a test holds the two against each other.

Times are milliseconds since the Unix epoch, amounts are kopecks, JSON is kept as text that only we read. There are no
foreign keys: the lock order (archive, event, payment, order, change) is the design, and a key would add locks to it.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    false,
    text,
)
from sqlalchemy.dialects import postgresql

# Ids and digests compare byte by byte in every database, whatever the language of the server.
_Id = String().with_variant(postgresql.VARCHAR(collation="C"), "postgresql")
# SQLite numbers its rows by itself only in a column of exactly the type INTEGER.
_Serial = BigInteger().with_variant(Integer(), "sqlite")

metadata = MetaData()


def _where(condition: str) -> dict[str, Any]:
    """Only such rows are in the index, in both databases."""
    return {"postgresql_where": text(condition), "sqlite_where": text(condition)}


callbacks = Table(
    "callbacks",
    metadata,
    Column("digest", _Id, primary_key=True, comment="the event's digest"),
    Column("body", LargeBinary, nullable=False, comment="the bytes that arrived first"),
    Column("content_type", String, nullable=False),
    Column("source", String, comment="the network address it first came from"),
    Column("first_seen_at_ms", BigInteger, nullable=False),
    Column("last_seen_at_ms", BigInteger, nullable=False),
    Column("times_seen", BigInteger, nullable=False, comment="deliveries, the broker's own repeats included"),
    Column("pruned_at_ms", BigInteger, comment="when a policy took the body away; null while it is here"),
    Index("callbacks_first_seen", "first_seen_at_ms"),
)

events = Table(
    "events",
    metadata,
    Column("digest", _Id, primary_key=True),
    Column("kind", String, nullable=False),
    Column("terminal_key", _Id, nullable=False),
    Column("payment_id", _Id),
    Column("order_id", _Id),
    Column("status", String, nullable=False),
    Column("success", Boolean),
    Column("amount_kopecks", BigInteger),
    Column("details", Text, nullable=False, comment="JSON: every other scalar that arrived, as text"),
    Column("recorded_at_ms", BigInteger, nullable=False),
    Index("events_payment", "terminal_key", "payment_id"),
    Index("events_order", "order_id"),
)

payments = Table(
    "payments",
    metadata,
    Column("terminal_key", _Id, primary_key=True),
    Column("payment_id", _Id, primary_key=True),
    Column("order_id", _Id),
    Column("status", String, nullable=False),
    Column("amount_kopecks", BigInteger),
    Column("review", Text),
    Column("evidence", Text, nullable=False, comment="JSON: the joined evidence, from which all else follows"),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("updated_at_ms", BigInteger, nullable=False),
    Index("payments_order", "order_id"),
    Index("payments_created", "created_at_ms", "terminal_key", "payment_id"),
)

orders = Table(
    "orders",
    metadata,
    Column("order_id", _Id, primary_key=True),
    Column("amount_kopecks", BigInteger, comment="null while payments name the order and the shop has not"),
    Column("status", String, nullable=False),
    Column("review", Text),
    Column("version", BigInteger, nullable=False, comment="how many changes were told of it"),
    Column("registered_at_ms", BigInteger),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("updated_at_ms", BigInteger, nullable=False),
    Index("orders_created", "created_at_ms", "order_id"),
    Index("orders_status_created", "status", "created_at_ms", "order_id"),
    Index("orders_review", "created_at_ms", "order_id", **_where("review IS NOT NULL")),
)

words = Table(
    "words",
    metadata,
    Column("order_id", _Id, primary_key=True),
    Column("status", String, nullable=False, comment="the highest status that somebody with a key said"),
    Column("said_by", Text, nullable=False),
    Column("said_why", Text),
    Column("said_at_ms", BigInteger, nullable=False),
)

changes = Table(
    "changes",
    metadata,
    Column("id", _Serial, primary_key=True, autoincrement=True, comment="rises in the order of the commits"),
    Column("order_id", _Id, nullable=False),
    Column("version", BigInteger, nullable=False, comment="the order's version after this change"),
    Column("status", String, nullable=False),
    Column("previous_status", String),
    Column("amount_kopecks", BigInteger),
    Column("review", Text),
    Column("changed_at_ms", BigInteger, nullable=False),
    Column(
        "handled", Boolean, comment="true: the shop's handlers ran; false: they were given up; null: not, or not yet"
    ),
    Column("traceparent", String, comment="the trace of the callback that brought it, while tracing is on"),
    Index("changes_order", "order_id", "version", unique=True),
    sqlite_autoincrement=True,
)

handler_state = Table(
    "handler_state",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False, comment="there is one row, 1"),
    Column("begun_after_id", BigInteger, nullable=False, comment="the last change before the shop had handlers"),
    Column("scanned_to_id", BigInteger, nullable=False, comment="changes up to here were looked at"),
)

handler_backlog = Table(
    "handler_backlog",
    metadata,
    Column("order_id", _Id, primary_key=True, comment="it has changes that no handler has seen yet"),
    Column("due_at_ms", BigInteger, nullable=False),
    Column("attempts", BigInteger, nullable=False, comment="failures of the handlers for its next change"),
    Index("handler_backlog_due", "due_at_ms"),
)

dead_letters = Table(
    "dead_letters",
    metadata,
    Column("id", _Serial, primary_key=True, autoincrement=True),
    Column("fingerprint", _Id, nullable=False, unique=True, comment="digest of reason and body: one row per poison"),
    Column("reason", String, nullable=False),
    Column("detail", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("content_type", String, nullable=False),
    Column("headers", Text, nullable=False, comment="JSON"),
    Column("terminal_key", _Id),
    Column("order_id", _Id),
    Column("first_seen_at_ms", BigInteger, nullable=False),
    Column("last_seen_at_ms", BigInteger, nullable=False),
    Column("times_seen", BigInteger, nullable=False),
    # The defaults are the server's, so that a program of the version before can still write here.
    Column("verified", Boolean, nullable=False, server_default=false(), comment="else terminal and order are claims"),
    Column("attempts", BigInteger, nullable=False, server_default=text("1"), comment="of the delivery seen last"),
    Column("state", String, nullable=False, server_default=text("'open'"), comment="open, redriven or discarded"),
    Column("settled_at_ms", BigInteger, comment="when it was redriven or discarded"),
    Column("settled_by", Text),
    Column("settled_why", Text),
    Index("dead_letters_last_seen", "last_seen_at_ms"),
    Index("dead_letters_state", "state", "last_seen_at_ms"),
    Index("dead_letters_order", "order_id"),
    sqlite_autoincrement=True,
)

canaries = Table(
    "canaries",
    metadata,
    Column("name", String, primary_key=True),
    Column("sent_at_ms", BigInteger, nullable=False, comment="when the newest one that came through was sent"),
)

audit = Table(
    "audit",
    metadata,
    Column("id", _Serial, primary_key=True, autoincrement=True),
    Column("at_ms", BigInteger, nullable=False),
    Column("actor", Text, nullable=False, comment="the person or program that acted"),
    Column("action", String, nullable=False),
    Column("subject", Text, nullable=False, comment="what was acted upon, such as dead_letter:12"),
    Column("reason", Text, nullable=False, comment="why, in the actor's words"),
    Column("details", Text, nullable=False, comment="JSON"),
    Index("audit_subject", "subject"),
    Index("audit_at", "at_ms"),
    sqlite_autoincrement=True,
)

compatibility = Table(
    "compatibility",
    metadata,
    Column(
        "oldest_program", String, primary_key=True, comment="one row: the oldest version that can work on these tables"
    ),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", _Id, primary_key=True, comment="the part of the key that is no secret"),
    Column("name", Text, nullable=False),
    Column("digest", String, nullable=False, comment="SHA-256 of the whole key, which is random"),
    Column("scope", String, nullable=False, comment="read, write or operate; each holds the one before it"),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("expires_at_ms", BigInteger),
    Column("last_used_at_ms", BigInteger, comment="to the minute"),
    Column("revoked_at_ms", BigInteger),
    Column("revoked_by", Text),
)

rollups = Table(
    "rollups",
    metadata,
    Column("hour_ms", BigInteger, primary_key=True, autoincrement=False, comment="0 is what stands now"),
    Column("name", _Id, primary_key=True, comment="a status of orders, or review"),
    Column("orders", BigInteger, nullable=False),
    Column("kopecks", BigInteger, nullable=False),
)
"""Counted from ``changes`` by a trigger: how many orders stand in each status, and how many entered it in an hour."""

sinks = Table(
    "sinks",
    metadata,
    Column("name", _Id, primary_key=True, comment="as the settings call it"),
    Column("cursor_id", BigInteger, nullable=False, comment="every change up to here has its delivery"),
    Column("paused", Boolean, nullable=False, server_default=false()),
    Column("holder", _Id, comment="the process that tells this sink now"),
    Column("lease_until_ms", BigInteger, nullable=False, server_default=text("0"), comment="by the database's clock"),
    Column("told", BigInteger, nullable=False, server_default=text("0")),
    Column("last_told_at_ms", BigInteger),
    Column("failing_since_ms", BigInteger, comment="null while the sink answers"),
    Column("last_error", Text),
    Column("created_at_ms", BigInteger, nullable=False),
)

_WAITING = text("state = 'waiting'")

deliveries = Table(
    "deliveries",
    metadata,
    Column("sink", _Id, primary_key=True),
    Column("change_id", BigInteger, primary_key=True, autoincrement=False),
    Column("order_id", _Id, nullable=False),
    Column("state", String, nullable=False, comment="waiting, told, skipped or dead"),
    Column(
        "round", BigInteger, nullable=False, server_default=text("0"), comment="how often it was told to be replayed"
    ),
    Column("attempts", BigInteger, nullable=False, server_default=text("0"), comment="that failed, in this round"),
    Column("due_at_ms", BigInteger, nullable=False),
    Column("queued_at_ms", BigInteger, nullable=False),
    Column("settled_at_ms", BigInteger),
    Column("last_error", Text),
    Index("deliveries_waiting", "sink", "order_id", "change_id", postgresql_where=_WAITING, sqlite_where=_WAITING),
    Index("deliveries_due", "sink", "due_at_ms", postgresql_where=_WAITING, sqlite_where=_WAITING),
    Index("deliveries_state", "sink", "state", "change_id"),
    Index("deliveries_order", "order_id", "change_id"),
)
