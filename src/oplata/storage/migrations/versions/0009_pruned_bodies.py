"""When a body was taken out of the archive by a policy, so that its absence is no gap."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("callbacks", sa.Column("pruned_at_ms", sa.BigInteger))
