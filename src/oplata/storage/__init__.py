"""Orders, payments, events and what became of every callback, in PostgreSQL or SQLite."""
