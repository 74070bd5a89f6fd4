"""The composition root: the only file that names concrete classes together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import StrEnum
from importlib.metadata import version
from types import TracebackType
from typing import Self

import structlog

from oplata.bank.keyring import Keyring
from oplata.errors import DatabaseUnavailable, OplataError, SettingsError
from oplata.feed.hub import MAX_SUBSCRIBERS, Hub
from oplata.feed.relay import Relay
from oplata.ingest import exposure as ingest_exposure
from oplata.ingest.app import create_app
from oplata.ingest.callback import Callback, Limits
from oplata.ingest.canary import CanarySender
from oplata.ingest.networks import Gate, networks_of
from oplata.ingest.traced import TracedCallback, TracedPublisher
from oplata.ingest.watched import WatchedPublisher
from oplata.observability.health import DatabaseHealth, Health, exposition, health_routes
from oplata.observability.metrics import Metrics
from oplata.orders.commands import Orders
from oplata.orders.door import Door, door_of
from oplata.orders.doorkeeper import Rates
from oplata.orders.keys import Keys
from oplata.orders.router import router
from oplata.orders.shop import Shop, shop_of
from oplata.orders.visitor import owner
from oplata.queue.base import Publisher, Queue
from oplata.queue.spool import SpoolingPublisher
from oplata.queue.sqlite import SqliteQueue
from oplata.reconcile.survey import Survey
from oplata.rpc import Caller
from oplata.settings import PASSWORD_SETTINGS, Settings
from oplata.settings.observers import tracing_of
from oplata.settings.stores import database_of, queue_of, spool_of
from oplata.settings.targets import targets_of
from oplata.storage.engine import Database
from oplata.worker import exposure as worker_exposure
from oplata.worker.backlog import begin
from oplata.worker.handlers import Handlers
from oplata.worker.loop import Worker
from oplata.worker.progress import STALL_S
from oplata.worker.redrive import BATCH_SIZE, Redriver

_log = structlog.get_logger("oplata.app")


class Role(StrEnum):
    """What a process does: all of it, or one half."""

    UP = "up"
    SERVE = "serve"
    WORKER = "worker"


class Oplata:
    """The program, for a process of its own or inside another one.

    ``asgi`` is a Starlette application that starts and stops this object with its lifespan. Mounted in another
    application its lifespan does not run: then call ``start`` and ``stop``, or use ``async with``. Both may be called
    more than once. Raises ``SettingsError`` for settings that cannot work; nothing is connected before ``start``.
    ``handlers`` are functions of the shop that run in the worker's transaction.
    """

    def __init__(
        self, settings: Settings | None = None, *, role: Role = Role.UP, handlers: Handlers | None = None
    ) -> None:
        self.settings = settings or Settings.load()
        self.role = role
        self.handlers = handlers
        self._keyring = Keyring(self.settings.passwords())
        self.queue = queue_of(self.settings)
        self._spool_file = None if role is Role.WORKER else spool_of(self.settings)
        self.spool = _spooling(self.settings, self.queue.publisher(), self._spool_file)
        self.database = database_of(self.settings)
        self._database_health = DatabaseHealth(self.database.check)
        self.orders = Orders(self.database)
        # The door counts connections. Sinks, and several subscriptions on one connection, have room beside those.
        self.hub = Hub(self.database, max_subscribers=self.settings.max_subscribers + MAX_SUBSCRIBERS)
        self.tracing = tracing_of(self.settings, role)
        sinks = targets_of(self.settings.sinks if role is Role.UP else ())
        self.relay = Relay(self.database, self.hub, sinks, tracing=self.tracing)
        redriver = Redriver(
            self.database,
            self.queue.publisher(),
            self._keyring,
            batch_size=min(BATCH_SIZE, self.settings.max_in_flight),
        )
        signing = [key.get_secret_value().encode() for key in self.settings.buyer_token_keys]
        self.shop = shop_of(self.database, redriver, self.hub, signing)
        self.keys = Keys(self.database)
        self.door = _door(self.settings, self.database, self.shop)
        self.worker = self._new_worker()
        self.metrics = Metrics()
        self.survey = Survey(
            queue=self.queue,
            spool=self._spool_file,
            database=self.database,
            hub=self.hub,
            interval_s=self.settings.survey_interval_s,
        )
        self.canaries = _canaries(self.settings, self.queue, self._keyring) if role is not Role.WORKER else None
        durable: Publisher = self.spool or self.queue.publisher()
        if self.tracing is not None:
            durable = TracedPublisher(durable, self.tracing.tracer)
        publisher = WatchedPublisher(durable, sample=self.settings.log_accepted)
        callback = _callback(self.settings, publisher, self._keyring)
        self._expose(callback, publisher)
        self.exposition = exposition(self.metrics.registry, self.alive, self.ready)
        self.asgi = create_app(
            callback if self.tracing is None else TracedCallback(callback, self.tracing.tracer),
            path=self.settings.callback_path,
            routes=health_routes(self.alive, self.ready),
            mounted={self.settings.rpc_path: self.door} if self.settings.rpc == "on" else {},
            on_start=[self.start],
            on_stop=[self.stop],
        )
        self.draining = False
        self._started = False
        self._working: asyncio.Task[None] | None = None
        self._watching: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Connect, and in the roles that work, begin to work. ``Role.UP`` brings the tables to this version first."""
        if self._started:
            return
        self._started = True
        try:
            await self._start_database()
            if self.role is not Role.WORKER:
                await self.hub.start()
                await self.door.start()
            await self.queue.start()
            if self.spool is not None:
                await self.spool.start()
        except BaseException:
            await self.stop()
            raise
        if self.role is not Role.SERVE:
            self.worker = self._new_worker()
            self._working = asyncio.create_task(self.worker.run(), name="oplata-worker")
        if self.settings.metrics_port is not None:
            self._watching.append(asyncio.create_task(self.survey.run(), name="oplata-survey"))
        if self.canaries is not None:
            self._watching.append(asyncio.create_task(self.canaries.run(), name="oplata-canary"))
        self.relay.start()

    async def drain(self) -> None:
        """A server in front of ``asgi`` begins to stop, and calls this before it waits for its clients, maybe again
        while it waits. What streams to them for ever has to end here.
        """
        self.draining = True
        await self.door.drain()

    async def stop(self) -> None:
        """Finish what was taken up, within the drain limit, and disconnect. The rest stays in the queue."""
        if not self._started:
            return
        self._started = False
        watching, self._watching = self._watching, []
        for task in watching:
            task.cancel()
        await asyncio.gather(*watching, return_exceptions=True)
        working, self._working = self._working, None
        if working is not None and not working.done():
            self.worker.stop()
            _, late = await asyncio.wait({working}, timeout=self.settings.drain_timeout_s)
            if late:
                _log.warning(
                    "The worker did not finish in time; its messages go back to the queue.", action="app.drain_late"
                )
                working.cancel()
                await asyncio.wait({working})
        await self.relay.drain(self.settings.drain_timeout_s)
        if self.spool is not None:
            await self.spool.stop()
        await self.queue.stop()
        await self.door.stop()
        await self.hub.stop()
        await self.database.stop()
        if self.tracing is not None:
            await self.tracing.stop()

    def rotate(self, reread: Callable[[], Settings]) -> None:
        """Take the terminals' passwords from settings that are read anew. If those are wrong, the old ones stay."""
        try:
            settings = reread()
            self._keyring.replace(settings.passwords())
        except SettingsError as error:
            _log.error("The settings are wrong; the passwords stay.", action="app.rotate", reason=str(error))
            return
        others = [name for name in self.settings.differing(settings) if name not in PASSWORD_SETTINGS]
        _log.info(
            "The terminals' passwords were read anew.",
            action="app.rotate",
            terminals=list(self._keyring.terminal_keys),
            wait_for_restart=others,
        )

    def progresses(self) -> bool:
        """Whether this process does what it is there for, as far as it can tell by itself."""
        return self._working is None or self.worker.progress.stalled_s() < STALL_S

    async def alive(self) -> Health:
        """Whether this process makes progress; one that does not is best ended and started anew."""
        if self.progresses():
            return Health()
        return Health((f"the worker has made no progress for {self.worker.progress.stalled_s():.0f} s",))

    async def ready(self) -> Health:
        """Whether this process can do its work now: take callbacks, or apply them."""
        faults = ["it is draining"] if self.draining or not self._started else []
        if self.role is not Role.WORKER and not await self._takes_callbacks():
            faults.append("neither the queue nor the spool takes a callback")
        if self.role is not Role.SERVE:
            if self.role is Role.WORKER and not self.queue.available:
                faults.append("the queue cannot be reached")
            faults += await self._database_health.faults()
        return Health(tuple(faults))

    async def _takes_callbacks(self) -> bool:
        if self.queue.available:
            return True
        try:
            return self.spool is not None and self.spool.available and await self.spool.has_room()
        except OplataError:
            return False

    async def require_key(self) -> None:
        """Raise ``SettingsError`` where nobody could open the door, and nobody said that it may stand open."""
        if self.role is not Role.WORKER and self.settings.rpc == "on" and not self.settings.insecure:
            await self.keys.require_one(self.settings.rpc_path)

    def caller(self, who: str = "embedded") -> Caller:
        """The procedures of the door, called from Python: ``await app.caller().orders.get(order_id="7")``."""
        return router.caller(owner(self.shop, who))

    async def watch(self) -> None:
        """Raise what ended the worker or the relay, should anything end one of them before ``stop``; otherwise wait."""
        running = [task for task in (self._working, self.relay.running) if task is not None]
        if not running:
            await asyncio.Event().wait()
        ended, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        for task in ended:
            task.result()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def _expose(self, callback: Callback, publisher: WatchedPublisher) -> None:
        """Supply the metrics of what this role does, and nothing about what others do."""
        queue = self.queue
        self.metrics.supply("oplata_build_info", lambda: {version("oplata"): 1.0})
        self.survey.expose(self.metrics)
        if not isinstance(queue, SqliteQueue):
            self.metrics.supply("oplata_queue_connects_total", lambda: float(queue.connects))
            self.metrics.supply(
                "oplata_queue_consumers", lambda: None if self.survey.depth is None else float(queue.consumers_seen)
            )
        if self.role is not Role.WORKER:
            ingest_exposure.expose(self.metrics, callback, publisher, self.spool, self.canaries)
        if self.role is not Role.SERVE:
            worker_exposure.expose(self.metrics, lambda: self.worker)

    def _new_worker(self) -> Worker:
        return Worker(
            queue=self.queue,
            database=self.database,
            keyring=self._keyring,
            batch_size=self.settings.batch_size,
            prefetch=self.settings.prefetch,
            retry_delays_ms=self.settings.queue_retry_delays_ms,
            max_attempts=self.settings.max_attempts,
            handlers=self.handlers,
            handler_timeout_s=self.settings.handler_timeout_s,
            announce=lambda _changes: self.hub.wake(),
            tracer=None if self.tracing is None else self.tracing.tracer,
        )

    async def _start_database(self) -> None:
        await self.database.start()
        if self.role is Role.SERVE:
            return  # It is connected to when somebody asks for an order; the callbacks need none.
        if self.role is Role.UP:
            _log.info(await self.database.migrate(), action="app.migrate")
        try:
            if self.role is not Role.UP:
                await self.database.check()
            if self.handlers:
                await begin(self.database)
        except DatabaseUnavailable as error:
            # It may come back; until then the messages wait in the queue, and the worker for the database.
            _log.warning("The database is away; the worker waits for it.", action="app.start", reason=str(error))


def _door(settings: Settings, database: Database, shop: Shop) -> Door:
    gate = Gate((), networks_of(settings.trusted_proxies))
    return door_of(
        database,
        shop,
        address_of=lambda peer, headers: gate.judge(peer, headers).address,
        open_to_all=settings.insecure,
        rates=Rates(key=settings.rpc_key_rate, address=settings.rpc_address_rate),
        origins=settings.rpc_origins,
        max_subscribers=settings.max_subscribers,
    )


def _canaries(settings: Settings, queue: Queue, keyring: Keyring) -> CanarySender | None:
    if not settings.canary_interval_s:
        return None
    return CanarySender(queue.publisher(), keyring, interval_s=settings.canary_interval_s)


def _spooling(settings: Settings, primary: Publisher, spool: SqliteQueue | None) -> SpoolingPublisher | None:
    if spool is None:
        return None
    return SpoolingPublisher(primary, spool, patience_s=min(settings.spool_patience_s, settings.confirm_timeout_s / 2))


def _callback(settings: Settings, publisher: Publisher, keyring: Keyring) -> Callback:
    return Callback(
        publisher,
        keyring,
        gate=Gate(networks_of(settings.allowed_networks), networks_of(settings.trusted_proxies)),
        limits=Limits(body_s=settings.body_timeout_s, confirm_s=settings.confirm_timeout_s),
    )
