"""The counts of orders find a change's predecessor by its index, however long the log is.

PostgreSQL keeps the plan of a trigger's statement, and made it for a log that was short: it read the whole of it for
each batch until statistics were gathered again. A sub-select with an OFFSET is run once for each row that was
appended, so there is nothing to choose. SQLite's trigger is run for each row as it is.
"""

from __future__ import annotations

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_ROLL_UP = """
CREATE OR REPLACE FUNCTION oplata_roll_up() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
INSERT INTO rollups (hour_ms, name, orders, kopecks)
SELECT hour_ms, name, sum(orders)::bigint, sum(kopecks)::bigint FROM (
SELECT 0 AS hour_ms, f.status AS name, 1 AS orders, coalesce(f.amount_kopecks, 0) AS kopecks FROM fresh f
UNION ALL
SELECT 0, f.previous_status, -1, -coalesce(f.amount_kopecks, 0) FROM fresh f WHERE f.previous_status IS NOT NULL
UNION ALL
SELECT 0, 'review', 1, 0 FROM fresh f WHERE f.review IS NOT NULL
UNION ALL
SELECT 0, 'review', -1, 0 FROM fresh f CROSS JOIN LATERAL
(SELECT c.review FROM changes c WHERE c.order_id = f.order_id AND c.version = f.version - 1 OFFSET 0) p
WHERE f.version > 1 AND p.review IS NOT NULL
UNION ALL
SELECT f.changed_at_ms - f.changed_at_ms % 3600000, f.status, 1, coalesce(f.amount_kopecks, 0) FROM fresh f
WHERE f.previous_status IS NULL OR f.previous_status <> f.status
) AS told WHERE true GROUP BY hour_ms, name ORDER BY hour_ms, name
ON CONFLICT (hour_ms, name) DO UPDATE
SET orders = rollups.orders + excluded.orders, kopecks = rollups.kopecks + excluded.kopecks;
RETURN NULL; END $$
"""


def upgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.execute(_ROLL_UP)
