"""Who is told of changes, how far each is, and what became of each delivery."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_ID = sa.String().with_variant(postgresql.VARCHAR(collation="C"), "postgresql")
_WAITING = sa.text("state = 'waiting'")


def upgrade() -> None:
    op.create_table(
        "sinks",
        sa.Column("name", _ID, primary_key=True),
        sa.Column("cursor_id", sa.BigInteger, nullable=False),
        sa.Column("paused", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("holder", _ID),
        sa.Column("lease_until_ms", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("told", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("last_told_at_ms", sa.BigInteger),
        sa.Column("failing_since_ms", sa.BigInteger),
        sa.Column("last_error", sa.Text),
        sa.Column("created_at_ms", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "deliveries",
        sa.Column("sink", _ID, primary_key=True),
        sa.Column("change_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("order_id", _ID, nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("round", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("attempts", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("due_at_ms", sa.BigInteger, nullable=False),
        sa.Column("queued_at_ms", sa.BigInteger, nullable=False),
        sa.Column("settled_at_ms", sa.BigInteger),
        sa.Column("last_error", sa.Text),
    )
    for name, columns in (
        ("deliveries_waiting", ["sink", "order_id", "change_id"]),
        ("deliveries_due", ["sink", "due_at_ms"]),
    ):
        op.create_index(name, "deliveries", columns, postgresql_where=_WAITING, sqlite_where=_WAITING)
    op.create_index("deliveries_state", "deliveries", ["sink", "state", "change_id"])
    op.create_index("deliveries_order", "deliveries", ["order_id", "change_id"])
