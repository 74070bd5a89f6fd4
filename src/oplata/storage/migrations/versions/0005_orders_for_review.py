"""The index of the orders that a person must look at. It holds nearly nothing."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    has_review = sa.text("review IS NOT NULL")
    op.create_index(
        "orders_review",
        "orders",
        ["created_at_ms", "order_id"],
        postgresql_where=has_review,
        sqlite_where=has_review,
    )
