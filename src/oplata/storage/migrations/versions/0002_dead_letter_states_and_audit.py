"""What became of each dead letter, and the audit: who did what, when and why.

It only adds, and each new column has a default: programs of the version before go on writing dead letters meanwhile.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_SERIAL = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    for column in (
        sa.Column("verified", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("attempts", sa.BigInteger, nullable=False, server_default=sa.text("1")),
        sa.Column("state", sa.String, nullable=False, server_default=sa.text("'open'")),
        sa.Column("settled_at_ms", sa.BigInteger),
        sa.Column("settled_by", sa.Text),
        sa.Column("settled_why", sa.Text),
    ):
        op.add_column("dead_letters", column)
    op.create_index("dead_letters_state", "dead_letters", ["state", "last_seen_at_ms"])
    op.create_index("dead_letters_order", "dead_letters", ["order_id"])
    op.create_table(
        "audit",
        sa.Column("id", _SERIAL, primary_key=True, autoincrement=True),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("action", sa.String, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("details", sa.Text, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("audit_subject", "audit", ["subject"])
    op.create_index("audit_at", "audit", ["at_ms"])
