"""The database and the queue of the settings, opened for one command and closed after it."""

from __future__ import annotations

import getpass
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from oplata.observability.logging import configure
from oplata.queue.base import Queue
from oplata.settings import Settings
from oplata.settings.stores import database_of, queue_of
from oplata.storage.engine import Database


@asynccontextmanager
async def opened_database(settings: Settings) -> AsyncIterator[Database]:
    """The database, once it is known to have our tables. Raises the errors of storage."""
    configure("error")  # What goes wrong is said in a sentence; the rest is not for somebody who typed a command.
    database = database_of(settings)
    await database.start()
    try:
        await database.check()
        yield database
    finally:
        await database.stop()


@asynccontextmanager
async def opened_queue(settings: Settings) -> AsyncIterator[Queue]:
    """The queue; whether it can be reached shows when it is used."""
    queue = queue_of(settings)
    await queue.start()
    try:
        yield queue
    finally:
        await queue.stop()


def os_user() -> str:
    """Whose account this process runs under, by name if it has one."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # A container may run under a number that no table names.
        return f"uid {os.getuid()}"
