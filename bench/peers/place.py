"""Where the peers find things, and the one UPDATE that each of them does for a message."""

from __future__ import annotations

import os

URL, QUEUE = os.environ["BENCH_AMQP_URL"], os.environ["BENCH_QUEUE"]
KIND, DATABASE_URL = os.environ["BENCH_QUEUE_TYPE"], os.environ["BENCH_DATABASE_URL"]
PREFETCH = 100
UPDATE = "UPDATE shop_orders SET status = 'paid' WHERE order_id = $1"
UPDATE_DBAPI = "UPDATE shop_orders SET status = 'paid' WHERE order_id = %s"
