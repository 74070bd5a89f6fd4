"""The rules of payments and orders: pure functions over plain values, with no network, database, clock or logger."""
