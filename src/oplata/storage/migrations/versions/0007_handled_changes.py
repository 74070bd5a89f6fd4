"""Which changes the shop's handlers have seen, and what they still have to see.

It only adds: programs of the version before write changes without saying whether they were handled: not yet.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_ID = sa.String().with_variant(postgresql.VARCHAR(collation="C"), "postgresql")


def upgrade() -> None:
    op.add_column("changes", sa.Column("handled", sa.Boolean))
    op.create_table(
        "handler_state",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("begun_after_id", sa.BigInteger, nullable=False),
        sa.Column("scanned_to_id", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "handler_backlog",
        sa.Column("order_id", _ID, primary_key=True),
        sa.Column("due_at_ms", sa.BigInteger, nullable=False),
        sa.Column("attempts", sa.BigInteger, nullable=False),
    )
    op.create_index("handler_backlog_due", "handler_backlog", ["due_at_ms"])
