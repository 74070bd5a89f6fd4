"""One run: everything that is simulated, put together from a seed, and watched until all is quiet."""

from __future__ import annotations

import asyncio
import functools
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from oplata.errors import MoneyError, OrderError, QueueUnavailable, Retryable
from oplata.orders.commands import Orders
from oplata.queue.base import Queue
from oplata.queue.envelope import Envelope
from oplata.queue.rabbitmq.queue import RabbitQueue
from oplata.queue.sqlite import SqliteQueue
from oplata.storage.changes import Change
from tests.simulation import bank, faults
from tests.simulation.broker import Broker
from tests.simulation.checkers import Checkers, Ledger, Wrong, assert_told_by_hand
from tests.simulation.client import Exchange
from tests.simulation.database import CURSED, Server, template
from tests.simulation.disk import Disk, Inline
from tests.simulation.loop import Loop, Process
from tests.simulation.programs import Ingest, Program, Shop, Up, Work
from tests.simulation.shape import Shape, shape_of
from tests.simulation.shopkeeper import Shopkeeper
from tests.simulation.trace import Trace
from tests.simulation.wire import Wire

MOST_STEPS = 1_500_000
QUIET_WITHIN_S = 400.0
QUEUE = "callbacks"
EPOCH_MS = 1_760_000_000_000


class World:
    """The parts and the clockwork. ``programs`` are the processes that may be harmed."""

    def __init__(self, seed: int, root: Path, *, verbose: bool = False) -> None:
        self.rng = random.Random(seed)
        self.shape: Shape = shape_of(self.rng)
        self.loop = Loop(random.Random(seed ^ 0x5EED), most_steps=MOST_STEPS)
        self.trace = Trace(self.loop.time, root=str(root), verbose=verbose)
        self.root = root
        self.disk = Disk(self.loop, random.Random(seed ^ 0xD15C))
        path = root / "oplata.db"
        path.write_bytes(template())
        self.database = Server(self.loop, random.Random(seed ^ 0xDB), self.trace, path, self.shape.lock_patience_s)
        self.broker = Broker(self.loop, random.Random(seed ^ 0xB0), self.trace, nack_counts=self.shape.nack_counts)
        self.bank = Process(self.loop, "bank")
        self.plan = bank.plan(self.rng, orders=self.shape.orders, span_s=self.shape.span_s)
        self.order_ids = [order.order_id for _, order in self.plan.registrations] or ["order-0001"]
        self.ledger = Ledger()
        self.checkers = Checkers(path, self.ledger, self._held)
        self.checkers.may_exhaust = self.shape.max_attempts < 10
        self.checkers.may_give_up = self.shape.may_give_up
        self.shopkeeper = Shopkeeper(seed, lambda: self.is_calm)
        self.answer_loss = 0.02
        self.crashes = 0
        self.commits_lost = 0
        self._destroyed: set[bytes] = set()
        self._asked_again: set[bytes] = set()
        self.failure: str | None = None
        self.ends_s = 0.0
        self._clock_ms = 0
        self._committed = False
        self._moved = False
        self._registered: set[int] = set()
        self._open_posts = 0
        self.is_calm = False
        self.ingests: list[Ingest] = []
        self.programs: list[Program] = []
        self._stranger_held: list[SqliteQueue] = []
        self._people()
        self.database.on_commit = lambda: setattr(self, "_committed", True)
        self.broker.on_change = self.disk.on_write = lambda: setattr(self, "_moved", True)
        self.loop.after_step = self._check

    # What the parts ask for.

    def wall_ms(self) -> int:
        """The wall clock."""
        return EPOCH_MS + int(self.loop.time() * 1000) + self._clock_ms

    def jump_clock(self, jump_ms: int) -> None:
        """Everybody's clock jumps; on several machines, only one machine's may."""
        if self.shape.broker == "rabbitmq" and not self.shape.spool and self.rng.random() < 0.5:
            self.rng.choice(self.programs)._skew_ms += jump_ms
        else:
            self._clock_ms += jump_ms

    def queue(self, process: Process, now_ms: Callable[[], int], held: list[SqliteQueue]) -> Queue:
        """The queue of this run, for one process."""
        if self.shape.broker == "sqlite":
            return self._file_queue("queue.db", now_ms, held)
        return RabbitQueue(
            "amqp://guest:guest@broker:5672/",
            QUEUE,
            retry_delays_ms=self.shape.retry_delays_ms,
            delivery_limit=self.shape.delivery_limit,
            max_in_flight=self.shape.max_in_flight,
            rng=self.rng,
            now_ms=now_ms,
            wire=functools.partial(Wire, self.broker, process),
        )

    def spool(self, _process: Process, name: str, now_ms: Callable[[], int], held: list[SqliteQueue]) -> SqliteQueue:
        """A spool's queue in a file of its own."""
        return self._file_queue(name, now_ms, held)

    def cut_of(self, process: Process) -> None:
        """A process died: the kernel resets its connections to the broker."""
        for cable in list(self.broker.cables):
            if cable._ends["client"] is process:
                cable.cut(flush=self.rng.random() < 0.5)

    def start_later(self, program: Program) -> None:
        """A supervisor starts what has ended."""
        if self.failure is None:
            delay_s = self.rng.choice((0.01, 0.5, 4.0)) * self.rng.random()
            self.loop.world.later(delay_s, program.start)

    def fail(self, reason: str) -> None:
        """The first thing that is wrong ends the run."""
        if self.failure is None and not self.loop.is_over:
            self.failure = reason
            self.trace.note("checkers", reason)
            self.loop.stop()

    def promise(self, body: bytes, content_type: str, *, genuine: bool) -> None:
        """The endpoint said OK."""
        self.trace.note("ingest", "OK")
        if not genuine:
            self.fail(f"OK was said to what the bank did not sign: {body!r}")
        self._promised(body, content_type)

    def announced(self, changes: Sequence[Change]) -> None:
        """A worker told of changes."""
        for change in changes:
            key = (change.order_id, change.version)
            if self.ledger.announced.setdefault(key, change.status) != change.status:
                self.fail(f"change {key} was announced with two statuses")
        self._committed = True

    def unregistered(self) -> list[int]:
        """The registrations that the shop has not seen succeed."""
        return [number for number in range(len(self.plan.registrations)) if number not in self._registered]

    async def register(self, orders: Orders, number: int) -> None:
        """The shop registers one order, as often as it takes, and now and then once more."""
        at_s, order = self.plan.registrations[number]
        await bank.until(self.loop, self.begin_s + at_s)
        self.ledger.amounts[order.order_id] = order.amount_kopecks
        while True:
            try:
                await orders.register(order.order_id, order.amount_kopecks)
                if self.rng.random() < 0.2:
                    await orders.register(order.order_id, order.amount_kopecks)
                break
            except Retryable:
                await asyncio.sleep(self.rng.random() * 2)
        if self.rng.random() < 0.2:
            try:
                await orders.register(order.order_id, order.amount_kopecks + 1)
            except (OrderError, MoneyError, Retryable):
                pass
            else:
                self.fail(f"order {order.order_id} was registered with two amounts")
        self._registered.add(number)

    def lose_power(self) -> None:
        """Every process of the machine dies, and of its files there is what was synced. A broker is another machine."""
        platters = list(self.disk.platters.values())
        if self.shape.broker == "sqlite":
            platters.append(self.database.platter)
        lost = sum(platter.fail(self.disk.rng) for platter in platters)
        self.trace.note("world", f"the power fails; {lost} commits were not on the disk")
        self.commits_lost += lost
        for program in self.programs:
            program.process.kill()
        for queue in self._stranger_held:
            queue.abandon()
        self._stranger_held.clear()
        self.checkers.close()
        for platter in platters:
            platter.restore()
        self.checkers.open()
        self._committed = True

    def delete_queue(self) -> None:
        """The main queue goes, and what was promised and lay in it is asked for again, as an operator would."""
        bodies = dict.fromkeys(self.broker.delete(QUEUE))
        self._destroyed.update(bodies)
        for body in bodies:
            self.ledger.poison.pop(body, None)
            if body in self.ledger.promised:
                self._ask_again(body)

    def _promised(self, body: bytes, content_type: str) -> None:
        self.ledger.promised.setdefault(body, content_type)
        self._moved = True
        if body in self._destroyed:
            # The confirm was on its way when the queue was deleted.
            self._ask_again(body)

    def _ask_again(self, body: bytes) -> None:
        if body not in self._asked_again:
            self._asked_again.add(body)
            self._open_posts += 1
            self.bank.spawn(self._resend(body))

    async def _resend(self, body: bytes) -> None:
        await self._repeat(body, self.ledger.promised[body])
        self._destroyed.discard(body)
        self._asked_again.discard(body)
        self._open_posts -= 1

    # The run.

    def run(self) -> None:
        """Until all is quiet, or something is wrong."""
        self.begin_s = self.loop.time()
        for program in self.programs:
            program.start()
        main = self.loop.world.spawn(self._live())
        try:
            self.loop.run_until_complete(main)
        except Wrong as wrong:
            self.fail(str(wrong))
        except RuntimeError as error:
            if self.failure is None:
                self.fail(f"{type(error).__name__}: {error}")
        self.ends_s = self.loop.time()

    def close(self) -> None:
        """Let go of everything."""
        self.loop.finish()
        self.checkers.close()

    async def _live(self) -> None:
        posting = [self.bank.spawn(self._send(post)) for post in self.plan.posts]
        self.bank.spawn(self._stranger())
        await faults.trouble(self)
        self.is_calm = True
        self.answer_loss = 0.0
        self.trace.note("world", "faults are over")
        deadline_s = self.loop.time() + QUIET_WITHIN_S
        await self._quiet(deadline_s)
        for body, content_type in self.checkers.to_redrive():
            posting.append(self.bank.spawn(self._post_until_ok(body, content_type)))
        await self._quiet(deadline_s)
        self._check_ending()

    async def _quiet(self, deadline_s: float) -> None:
        """Everything was said and heard, and the queue is empty."""
        while True:
            await asyncio.sleep(0.5)
            unhandled = self.checkers.outstanding() if self.shopkeeper.handlers else 0
            waiting = self._open_posts, len(self.unregistered()), len(self._bodies()), self._strangers_left, unhandled
            if not any(waiting):
                return
            if self.loop.time() > deadline_s:
                self.fail(
                    f"no quiet: {waiting} posts, registrations, queued messages, strangers' messages, handlers are left"
                )
                await asyncio.sleep(1)

    def _check_ending(self) -> None:
        self.checkers.after_commit()
        self.checkers.nothing_missing()
        if unkept := self.checkers.unkept():
            raise Wrong(f"a callback that was answered OK was never applied: {unkept[0]}")
        expected = self.checkers.expected()
        found = {key: (row["status"], row["review"] is not None) for key, row in self.checkers.orders.items()}
        if {key: tuple(ending) for key, ending in expected.items()} != found:
            raise Wrong(f"orders end as {found} and have to be {expected}")
        assert_told_by_hand(self.checkers.orders, self.plan.told)
        missing = [post for post in self.plan.posts if post.callback.genuine and not self._is_kept(post.callback)]
        if missing:
            raise Wrong(f"a callback of the bank never had an effect: {missing[0].callback.what}")
        for body in self.ledger.poison:
            if body not in self.checkers._buried:
                raise Wrong(f"a message that cannot be applied lies in no dead letter: {body!r}")
        if self.loop.complaints:
            raise Wrong(f"the event loop complains: {self.loop.complaints[0]}")

    def _is_kept(self, callback: Any) -> bool:
        return (
            self.checkers.identity(callback.body, callback.content_type) in self.checkers._kept
            or CURSED.encode() in callback.body
        )

    async def _send(self, post: bank.Post) -> None:
        """One callback of the bank, until it is heard; a forger's comes but once."""
        self._open_posts += 1
        callback = post.callback
        await bank.until(self.loop, self.begin_s + post.at_s)
        if not callback.genuine:
            await Exchange(self, callback.body, callback.content_type, genuine=False).perform()
        else:
            await self._repeat(callback.body, callback.content_type)
            if self.rng.random() < 0.1:
                await asyncio.sleep(self.rng.random() * 10)
                await self._repeat(callback.body, callback.content_type)
        self._open_posts -= 1

    async def _post_until_ok(self, body: bytes, content_type: str) -> None:
        self._open_posts += 1
        await self._repeat(body, content_type)
        self._open_posts -= 1

    async def _repeat(self, body: bytes, content_type: str) -> None:
        heard = False
        while not heard:
            heard = await Exchange(self, body, content_type, genuine=True).perform()
            pause_s = 0.0 if heard else self.rng.choice((0.2, 3.0, 8.0)) * (0.5 + self.rng.random())
            await asyncio.sleep(pause_s)

    async def _stranger(self) -> None:
        """Another program that writes into our queue: forgeries, garbage, and now and then something genuine."""
        self._strangers_left = len(self.plan.strangers)
        held = self._stranger_held
        queue = self.queue(self.bank, self.wall_ms, held)
        await queue.start()
        for post in self.plan.strangers:
            await bank.until(self.loop, self.begin_s + post.at_s)
            envelope = Envelope(body=post.callback.body, content_type=post.callback.content_type)
            while True:
                try:
                    await queue.publisher().publish(envelope, timeout_s=5)
                    break
                except QueueUnavailable:
                    await asyncio.sleep(1)
                    if self.shape.broker == "sqlite" and queue not in held:
                        queue = self.queue(self.bank, self.wall_ms, held)
                        await queue.start()
            if post.callback.genuine:
                self._promised(envelope.body, envelope.content_type)
            elif envelope.body not in self._destroyed:
                self.ledger.poison[envelope.body] = envelope.content_type
            self._moved = True
            self._strangers_left -= 1
        await queue.stop()

    def _check(self, _process: Process) -> None:
        try:
            if self._committed:
                self._committed = False
                self._moved = True
                self.checkers.after_commit()
            if self._moved:
                self._moved = False
                self.checkers.nothing_missing()
        except Wrong as wrong:
            self.fail(str(wrong))

    def _held(self) -> Callable[[bytes], bool]:
        files = set(self.disk.bodies())
        return lambda body: body in self.broker.held or body in files or body in self._destroyed

    def _bodies(self) -> list[bytes]:
        return [*self.broker.held, *self.disk.bodies()]

    def _file_queue(self, name: str, now_ms: Callable[[], int], held: list[SqliteQueue]) -> SqliteQueue:
        path = self.root / name
        self.disk.add(path)
        queue = SqliteQueue(
            path,
            retry_delays_ms=self.shape.retry_delays_ms,
            delivery_limit=self.shape.delivery_limit,
            max_in_flight=self.shape.max_in_flight,
            lease_s=10.0,
            poll_interval_s=0.4,
            min_free_bytes=0,
            now_ms=now_ms,
            rng=self.rng,
            runner=lambda: Inline(self.disk, lambda: queue),
        )
        held.append(queue)
        return queue

    def _people(self) -> None:
        shape = self.shape
        spools = [f"spool-{0 if shape.shared_spool else number}.db" for number in range(shape.ingests)]
        for number in range(shape.ingests):
            spool = spools[number] if shape.spool else None
            kind = Up if shape.together else Ingest
            self.ingests.append(kind(self, f"{'up' if shape.together else 'ingest'}-{number}", spool))
        self.programs = [*self.ingests, Shop(self, "shop")]
        if not shape.together:
            self.programs += [Work(self, f"worker-{number}") for number in range(shape.workers)]
        self._strangers_left = 0
