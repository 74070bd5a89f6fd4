"""Which programs the tables still suit, so that one of the version before may start while the next is rolled out."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

oldest_program = "0003"


def upgrade() -> None:
    op.create_table("compatibility", sa.Column("oldest_program", sa.String, primary_key=True))
