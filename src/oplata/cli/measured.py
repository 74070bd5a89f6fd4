"""The metrics port of a relay."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from importlib.metadata import version

from oplata.feed.hub import Hub
from oplata.observability.health import DatabaseHealth, Health, exposition
from oplata.observability.metrics import Metrics
from oplata.observability.server import exposed
from oplata.reconcile.survey import Survey
from oplata.settings import Settings
from oplata.storage.engine import Database


@contextlib.asynccontextmanager
async def measured(settings: Settings, database: Database, hub: Hub) -> AsyncIterator[None]:
    """Tell metrics and health meanwhile, where a port is set for it."""
    if settings.metrics_port is None:
        yield
        return
    metrics = Metrics()
    metrics.supply("oplata_build_info", lambda: {version("oplata"): 1.0})
    survey = Survey(queue=None, spool=None, database=database, hub=hub, interval_s=settings.survey_interval_s)
    survey.expose(metrics)
    database_health = DatabaseHealth(database.check)

    async def alive() -> Health:
        return Health()  # It answers, and a relay that ends takes its process with it.

    async def ready() -> Health:
        return Health(await database_health.faults())

    surveying = asyncio.create_task(survey.run(), name="oplata-survey")
    try:
        async with exposed(exposition(metrics.registry, alive, ready), settings.metrics_host, settings.metrics_port):
            yield
    finally:
        surveying.cancel()
        await asyncio.gather(surveying, return_exceptions=True)
