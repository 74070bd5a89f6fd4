"""The embedded queue: one SQLite file, shared by every process that opens it."""

from oplata.queue.sqlite.queue import SqliteQueue

__all__ = ["SqliteQueue"]
