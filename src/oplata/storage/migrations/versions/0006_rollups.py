"""Counts of the orders that the database keeps by itself.

A trigger on the change log keeps them, so that a program of the version before counts, too. It is made before the
orders are counted: it waits for those who append to the log, and they wait for it until all is counted.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_ID = sa.String().with_variant(postgresql.VARCHAR(collation="C"), "postgresql")

_EACH = """
SELECT 0 AS hour_ms, f.status AS name, 1 AS orders, coalesce(f.amount_kopecks, 0) AS kopecks FROM {fresh} f
UNION ALL
SELECT 0, f.previous_status, -1, -coalesce(f.amount_kopecks, 0) FROM {fresh} f WHERE f.previous_status IS NOT NULL
UNION ALL
SELECT 0, 'review', 1, 0 FROM {fresh} f WHERE f.review IS NOT NULL
UNION ALL
SELECT 0, 'review', -1, 0 FROM {fresh} f JOIN changes p ON p.order_id = f.order_id AND p.version = f.version - 1
WHERE p.review IS NOT NULL
UNION ALL
SELECT f.changed_at_ms - f.changed_at_ms % 3600000, f.status, 1, coalesce(f.amount_kopecks, 0) FROM {fresh} f
WHERE f.previous_status IS NULL OR f.previous_status <> f.status
"""
_ADD = """
INSERT INTO rollups (hour_ms, name, orders, kopecks)
SELECT hour_ms, name, {orders}, {kopecks} FROM ({each}) AS told WHERE true GROUP BY hour_ms, name ORDER BY hour_ms, name
ON CONFLICT (hour_ms, name) DO UPDATE
SET orders = rollups.orders + excluded.orders, kopecks = rollups.kopecks + excluded.kopecks;
"""
_SQLITE_FRESH = (
    "(SELECT new.status AS status, new.previous_status AS previous_status, new.review AS review, "
    "new.amount_kopecks AS amount_kopecks, new.order_id AS order_id, new.version AS version, "
    "new.changed_at_ms AS changed_at_ms)"
)


def upgrade() -> None:
    op.create_table(
        "rollups",
        sa.Column("hour_ms", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("name", _ID, primary_key=True),
        sa.Column("orders", sa.BigInteger, nullable=False),
        sa.Column("kopecks", sa.BigInteger, nullable=False),
    )
    _keep_counting()
    _count_what_is_there()


def _keep_counting() -> None:
    if op.get_bind().dialect.name == "sqlite":
        each = _EACH.format(fresh=_SQLITE_FRESH)
        add = _ADD.format(orders="sum(orders)", kopecks="sum(kopecks)", each=each)
        op.execute(f"CREATE TRIGGER changes_rolled_up AFTER INSERT ON changes BEGIN {add} END")
        return
    # Cast, since the sum of bigints is a numeric, which could be anything.
    add = _ADD.format(orders="sum(orders)::bigint", kopecks="sum(kopecks)::bigint", each=_EACH.format(fresh="fresh"))
    op.execute(
        f"CREATE FUNCTION oplata_roll_up() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {add} RETURN NULL; END $$"
    )
    op.execute(
        "CREATE TRIGGER changes_rolled_up AFTER INSERT ON changes REFERENCING NEW TABLE AS fresh "
        "FOR EACH STATEMENT EXECUTE FUNCTION oplata_roll_up()"
    )


def _count_what_is_there() -> None:
    op.execute(
        "INSERT INTO rollups (hour_ms, name, orders, kopecks) SELECT 0, status, count(*), "
        "coalesce(sum(amount_kopecks), 0) FROM orders WHERE status <> 'unregistered' GROUP BY status"
    )
    op.execute(
        "INSERT INTO rollups (hour_ms, name, orders, kopecks) SELECT 0, 'review', count(*), 0 FROM orders "
        "WHERE review IS NOT NULL HAVING count(*) > 0"
    )
