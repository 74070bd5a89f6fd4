"""The first tables: archive, events, payments, orders, change log, dead letters."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_ID = sa.String().with_variant(postgresql.VARCHAR(collation="C"), "postgresql")
_SERIAL = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    _create_archive_and_events()
    _create_payments_and_orders()
    _create_changes_and_dead_letters()


def _create_archive_and_events() -> None:
    op.create_table(
        "callbacks",
        sa.Column("digest", _ID, primary_key=True),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("content_type", sa.String, nullable=False),
        sa.Column("source", sa.String),
        sa.Column("first_seen_at_ms", sa.BigInteger, nullable=False),
        sa.Column("last_seen_at_ms", sa.BigInteger, nullable=False),
        sa.Column("times_seen", sa.BigInteger, nullable=False),
    )
    op.create_index("callbacks_first_seen", "callbacks", ["first_seen_at_ms"])
    op.create_table(
        "events",
        sa.Column("digest", _ID, primary_key=True),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("terminal_key", _ID, nullable=False),
        sa.Column("payment_id", _ID),
        sa.Column("order_id", _ID),
        sa.Column("status", sa.String, nullable=False),
        sa.Column("success", sa.Boolean),
        sa.Column("amount_kopecks", sa.BigInteger),
        sa.Column("details", sa.Text, nullable=False),
        sa.Column("recorded_at_ms", sa.BigInteger, nullable=False),
    )
    op.create_index("events_payment", "events", ["terminal_key", "payment_id"])
    op.create_index("events_order", "events", ["order_id"])


def _create_payments_and_orders() -> None:
    op.create_table(
        "payments",
        sa.Column("terminal_key", _ID, primary_key=True),
        sa.Column("payment_id", _ID, primary_key=True),
        sa.Column("order_id", _ID),
        sa.Column("status", sa.String, nullable=False),
        sa.Column("amount_kopecks", sa.BigInteger),
        sa.Column("review", sa.Text),
        sa.Column("evidence", sa.Text, nullable=False),
        sa.Column("created_at_ms", sa.BigInteger, nullable=False),
        sa.Column("updated_at_ms", sa.BigInteger, nullable=False),
    )
    op.create_index("payments_order", "payments", ["order_id"])
    op.create_table(
        "orders",
        sa.Column("order_id", _ID, primary_key=True),
        sa.Column("amount_kopecks", sa.BigInteger),
        sa.Column("status", sa.String, nullable=False),
        sa.Column("review", sa.Text),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("registered_at_ms", sa.BigInteger),
        sa.Column("created_at_ms", sa.BigInteger, nullable=False),
        sa.Column("updated_at_ms", sa.BigInteger, nullable=False),
    )
    op.create_index("orders_created", "orders", ["created_at_ms", "order_id"])
    op.create_index("orders_status_created", "orders", ["status", "created_at_ms", "order_id"])


def _create_changes_and_dead_letters() -> None:
    op.create_table(
        "changes",
        sa.Column("id", _SERIAL, primary_key=True, autoincrement=True),
        sa.Column("order_id", _ID, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("status", sa.String, nullable=False),
        sa.Column("previous_status", sa.String),
        sa.Column("amount_kopecks", sa.BigInteger),
        sa.Column("review", sa.Text),
        sa.Column("changed_at_ms", sa.BigInteger, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("changes_order", "changes", ["order_id", "version"], unique=True)
    op.create_table(
        "dead_letters",
        sa.Column("id", _SERIAL, primary_key=True, autoincrement=True),
        sa.Column("fingerprint", _ID, nullable=False, unique=True),
        sa.Column("reason", sa.String, nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("content_type", sa.String, nullable=False),
        sa.Column("headers", sa.Text, nullable=False),
        sa.Column("terminal_key", _ID),
        sa.Column("order_id", _ID),
        sa.Column("first_seen_at_ms", sa.BigInteger, nullable=False),
        sa.Column("last_seen_at_ms", sa.BigInteger, nullable=False),
        sa.Column("times_seen", sa.BigInteger, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("dead_letters_last_seen", "dead_letters", ["last_seen_at_ms"])
