"""What was said of orders, API keys, and the index of the payments' list.

It only adds. A program of the version before does not read ``words``; orders that nobody speaks of are the same to it.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_ID = sa.String().with_variant(postgresql.VARCHAR(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "words",
        sa.Column("order_id", _ID, primary_key=True),
        sa.Column("status", sa.String, nullable=False),
        sa.Column("said_by", sa.Text, nullable=False),
        sa.Column("said_why", sa.Text),
        sa.Column("said_at_ms", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "api_keys",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("digest", sa.String, nullable=False),
        sa.Column("scope", sa.String, nullable=False),
        sa.Column("created_at_ms", sa.BigInteger, nullable=False),
        sa.Column("created_by", sa.Text, nullable=False),
        sa.Column("expires_at_ms", sa.BigInteger),
        sa.Column("last_used_at_ms", sa.BigInteger),
        sa.Column("revoked_at_ms", sa.BigInteger),
        sa.Column("revoked_by", sa.Text),
    )
    op.create_index("payments_created", "payments", ["created_at_ms", "terminal_key", "payment_id"])
