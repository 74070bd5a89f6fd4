"""The metrics port of a relay."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from importlib.metadata import version

from oplata.errors import OplataError
from oplata.feed.hub import Hub
from oplata.feed.relay import Relay
from oplata.observability.health import Health, exposition
from oplata.observability.metrics import Metrics
from oplata.observability.server import exposed
from oplata.reconcile.survey import Survey
from oplata.settings import Settings
from oplata.storage.engine import Database

READY_TIMEOUT_S = 3.0


@contextlib.asynccontextmanager
async def measured(settings: Settings, database: Database, hub: Hub, relay: Relay) -> AsyncIterator[None]:
    """Tell metrics and health meanwhile, where a port is set for it."""
    if settings.metrics_port is None:
        yield
        return
    metrics = Metrics()
    metrics.supply("oplata_build_info", lambda: {version("oplata"): 1.0})
    survey = Survey(queue=None, spool=None, database=database, hub=hub, interval_s=settings.survey_interval_s)
    survey.expose(metrics)

    async def alive() -> Health:
        ended = relay.running is not None and relay.running.done()
        return Health(("the relay has ended",)) if ended else Health()

    async def ready() -> Health:
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                await database.check()
        except OplataError as error:
            return Health((f"the database is not as it should be: {error}",))
        except TimeoutError:
            return Health((f"the database did not answer within {READY_TIMEOUT_S:.0f} s",))
        return Health()

    surveying = asyncio.create_task(survey.run(), name="oplata-survey")
    try:
        async with exposed(exposition(metrics.registry, alive, ready), settings.metrics_host, settings.metrics_port):
            yield
    finally:
        surveying.cancel()
        await asyncio.gather(surveying, return_exceptions=True)
