"""The program's processes: built from the real parts as ``oplata.app`` builds them, started, stopped and killed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any

from oplata.bank.keyring import Keyring
from oplata.ingest.answer import Answer
from oplata.ingest.callback import Callback, Limits
from oplata.ingest.outcomes import LineLimit
from oplata.orders.commands import Orders
from oplata.queue.base import Publisher, Queue
from oplata.queue.spool import SpoolingPublisher
from oplata.queue.sqlite import SqliteQueue
from oplata.storage.changes import Change
from oplata.storage.engine import Database
from oplata.worker.loop import Worker
from tests.simulation.bank import PASSWORDS
from tests.simulation.loop import Process

if TYPE_CHECKING:
    from tests.simulation.world import World

DRAIN_S = 20.0


class Program:
    """A program that is started again whenever it ends. What it is made of stands in ``_main``."""

    takes_messages = False

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.process = Process(world.loop, name)
        self.is_serving = False
        self.starts = 0
        self.spooling: SpoolingPublisher | None = None
        self._held: list[SqliteQueue] = []
        self._stopping = asyncio.Event()
        self._skew_ms = 0

    def start(self) -> None:
        """Begin in a new process."""
        self.starts += 1
        if self.starts > 1:
            self.process = Process(self.world.loop, f"{self.name}#{self.starts}")
        self.process.on_death = self._died
        self._stopping = asyncio.Event()
        self.process.spawn(self._run())

    def stop(self) -> None:
        """As SIGTERM: finish and leave."""
        if not self.process.is_dead:
            self.world.trace.note(self.process, "told to stop")
            self._stopping.set()

    def now_ms(self) -> int:
        """This machine's wall clock, which may jump."""
        return self.world.wall_ms() + self._skew_ms

    def queue(self) -> Queue:
        """A queue object of this process."""
        return self.world.queue(self.process, self.now_ms, self._held)

    def database(self) -> Database:
        """A database object of this process."""
        server = self.world.database
        return Database(f"sqlite:///{server.path}", connect=server.connector(self.process))

    async def _run(self) -> None:
        process = self.process
        self.world.trace.note(process, "start")
        try:
            await self._main()
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self.world.fail(f"{process} ended by itself: {_unfolded(error)}")
            raise
        self.is_serving = False
        self.world.trace.note(process, "end")
        process.on_death = self._ended
        process.kill()

    async def _main(self) -> None:
        raise NotImplementedError

    def _died(self) -> None:
        """It was killed."""
        self.is_serving = False
        self.world.trace.note(self.process, "killed")
        self.world.crashes += 1
        self._ended()

    def _ended(self) -> None:
        """The kernel closes what a process had open, however it ended."""
        self.world.database.drop_of(self.process)
        self.world.cut_of(self.process)
        held, self._held = self._held, []
        for queue in held:
            queue.abandon()
        self.world.start_later(self)


class _Asker:
    """One request that came in one piece; ``answered`` is done when it is."""

    def __init__(self, process: Process, answered: asyncio.Future[None], tell: Callable[[int, bytes], None]) -> None:
        self._process = process
        self._answered = answered
        self._tell = tell

    def answer(self, reply: Answer) -> None:
        self._answered.set_result(None)
        self._tell(reply.status, reply.body)

    def spawn(self, answering: Coroutine[Any, Any, None]) -> None:
        self._process.spawn(answering)


class Ingest(Program):
    """``oplata serve``, without the socket: the bank's requests come through ``handle`` and ``take_whole``."""

    def __init__(self, world: World, name: str, spool: str | None) -> None:
        super().__init__(world, name)
        self._spool = spool
        self.callback: Callback | None = None
        self._in_flight: dict[asyncio.Future[None], Callable[[], None]] = {}

    def handle(self, scope: Any, receive: Any, send: Any, reset: Callable[[], None]) -> None:
        """Take a request; ``reset`` is called when this process dies before it has answered."""
        assert self.callback is not None
        task = self.process.spawn(self.callback(scope, receive, send))
        self._note_in_flight(task, reset)

    def take_whole(
        self,
        peer: str,
        headers: list[tuple[bytes, bytes]],
        body: bytes,
        tell: Callable[[int, bytes], None],
        reset: Callable[[], None],
    ) -> None:
        """Take a request that came in one piece. Called within this process."""
        assert self.callback is not None
        answered: asyncio.Future[None] = self.world.loop.create_future()
        self._note_in_flight(answered, reset)
        self.callback.take(peer, headers, body, _Asker(self.process, answered, tell))

    def _note_in_flight(self, answering: asyncio.Future[None], reset: Callable[[], None]) -> None:
        self._in_flight[answering] = reset
        answering.add_done_callback(lambda done: self._in_flight.pop(done, None), context=self.process.context)

    def take(self, publisher: Publisher) -> None:
        """Begin to serve with this publisher."""
        self.callback = Callback(
            publisher,
            Keyring({terminal: [password] for terminal, password in PASSWORDS.items()}),
            limits=Limits(confirm_s=self.world.shape.confirm_s),
            now_ms=self.now_ms,
            new_message_id=lambda: f"{self.world.rng.getrandbits(128):032x}",
            lines=LineLimit(monotonic_s=self.world.loop.time),
        )
        self.is_serving = True

    async def drained(self) -> None:
        """Accept nothing more, and answer what is in flight."""
        self.is_serving = False
        tasks = list(self._in_flight)
        if tasks:
            await asyncio.wait(tasks, timeout=DRAIN_S)

    async def _main(self) -> None:
        self._in_flight = {}
        queue = self.queue()
        publisher = await self._publisher(queue)
        await queue.start()
        self.take(publisher)
        await self._stopping.wait()
        await self.drained()
        if self.spooling is not None:
            await self.spooling.stop()
        await queue.stop()

    async def _publisher(self, queue: Queue) -> Publisher:
        if self._spool is None:
            return queue.publisher()
        spool = self.world.spool(self.process, self._spool, self.now_ms, self._held)
        self.spooling = SpoolingPublisher(queue.publisher(), spool, rng=self.world.rng)
        await self.spooling.start()
        return self.spooling

    def _died(self) -> None:
        for reset in list(self._in_flight.values()):
            reset()
        super()._died()


class Work(Program):
    """``oplata worker``."""

    takes_messages = True

    async def _main(self) -> None:
        queue, database = self.queue(), self.database()
        await database.start()
        await queue.start()
        await self.work(queue, database)
        await queue.stop()
        await database.stop()

    async def work(self, queue: Queue, database: Database) -> None:
        """Until told to stop."""
        shape = self.world.shape
        worker = Worker(
            queue=queue,
            database=database,
            keyring=Keyring({terminal: [password] for terminal, password in PASSWORDS.items()}),
            batch_size=shape.batch_size,
            prefetch=shape.prefetch,
            hold_s=shape.hold_s,
            retry_delays_ms=shape.retry_delays_ms,
            max_attempts=shape.max_attempts,
            handlers=self.world.shopkeeper.handlers,
            announce=self._announce,
            now_ms=self.now_ms,
            rng=self.world.rng,
        )
        working = asyncio.ensure_future(worker.run())
        stopping = asyncio.ensure_future(self._stopping.wait())
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        worker.stop()
        _, late = await asyncio.wait({working}, timeout=DRAIN_S)
        if late:
            working.cancel()
            await asyncio.wait({working})
        stopping.cancel()
        if not working.cancelled():
            working.result()

    def _announce(self, changes: Sequence[Change]) -> None:
        self.world.announced(changes)


class Up(Ingest, Work):
    """``oplata up``: all in one process, with one queue and one database."""

    async def _main(self) -> None:
        self._in_flight = {}
        queue, database = self.queue(), self.database()
        await database.start()
        publisher = await self._publisher(queue)
        await queue.start()
        self.take(publisher)
        await self.work(queue, database)
        await self.drained()
        if self.spooling is not None:
            await self.spooling.stop()
        await queue.stop()
        await database.stop()


class Shop(Program):
    """The shop's own process, which registers orders with ``oplata.orders``."""

    async def _main(self) -> None:
        database = self.database()
        await database.start()
        orders = Orders(database, now_ms=self.now_ms)
        work = asyncio.ensure_future(self._register_all(orders))
        stopping = asyncio.ensure_future(self._stopping.wait())
        await asyncio.wait({work, stopping}, return_when=asyncio.FIRST_COMPLETED)
        for task in (work, stopping):
            task.cancel()
        await asyncio.wait({work, stopping})
        if not work.cancelled():
            work.result()
        await database.stop()

    async def _register_all(self, orders: Orders) -> None:
        await asyncio.gather(*(self.world.register(orders, number) for number in self.world.unregistered()))
        await asyncio.Event().wait()


def _unfolded(error: BaseException) -> str:
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(_unfolded(each) for each in error.exceptions)
    return f"{type(error).__name__}: {error}"
