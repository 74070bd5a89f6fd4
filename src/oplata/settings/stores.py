"""The database, the queue and the spool that the settings name."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from sqlalchemy.engine import make_url

from oplata.errors import SettingsError
from oplata.queue.sqlite import SqliteQueue
from oplata.settings.model import Settings
from oplata.storage.engine import Database

if TYPE_CHECKING:
    from oplata.queue.rabbitmq import RabbitQueue


def database_of(settings: Settings) -> Database:
    """The database that the settings name."""
    return Database(settings.database_url.get_secret_value(), pool_size=settings.database_pool_size)


def queue_of(settings: Settings) -> SqliteQueue | RabbitQueue:
    """The queue that the settings name. Raises ``SettingsError``."""
    url = settings.queue_url.get_secret_value()
    if url.startswith("sqlite"):
        path = make_url(url).database
        if not path or path == ":memory:":
            raise SettingsError("OPLATA_QUEUE_URL names no file. Use a URL such as sqlite:///oplata-queue.db.")
        return SqliteQueue(path, retry_delays_ms=settings.queue_retry_delays_ms, max_in_flight=settings.max_in_flight)
    from oplata.queue.rabbitmq import RabbitQueue  # pika is for those who have a broker.

    return RabbitQueue(
        url,
        settings.queue_name,
        declare=settings.queue_declare,
        retry_delays_ms=settings.queue_retry_delays_ms,
        max_in_flight=settings.max_in_flight,
        rng=random.SystemRandom(),
    )


def spool_of(settings: Settings) -> SqliteQueue | None:
    """The file that stands in for a broker that is away; None where it is not wanted, or the queue is a file anyway."""
    if settings.spool == "off" or settings.queue_url.get_secret_value().startswith("sqlite"):
        return None
    return SqliteQueue(
        settings.spool_path,
        # The spool's reader only passes messages on and knows no poison: however often it dies, none may be given up.
        delivery_limit=10**9,
        max_in_flight=settings.max_in_flight,
        max_bytes=settings.spool_max_bytes,
        min_free_bytes=settings.spool_min_free_bytes,
    )
