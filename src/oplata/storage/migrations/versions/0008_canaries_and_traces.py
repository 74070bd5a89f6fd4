"""Where the newest canary is noted, and the trace that a change belongs to."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "canaries",
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("sent_at_ms", sa.BigInteger, nullable=False),
    )
    op.add_column("changes", sa.Column("traceparent", sa.String))
