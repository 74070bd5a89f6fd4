"""Takes messages out of a SQLite queue."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from math import inf
from typing import Any

from oplata.errors import NotConfirmed, QueueUnavailable
from oplata.queue.envelope import Delivery
from oplata.queue.sqlite.lane import Lane, Ticket
from oplata.queue.sqlite.store import SqliteStore, raised_headers

SETTLE_TIMEOUT_S = 10.0

Settlement = Callable[[SqliteStore], None]
Key = tuple[int, int]


class SqliteConsumer:
    """Holds at most ``prefetch`` leased messages; see ``Consumer``. Made by ``SqliteQueue.consumer``.

    What was leased while nobody listened any more (``receive`` was cancelled, or its time was over) is handed out by
    the next ``receive``, or goes back with ``close``.
    """

    def __init__(
        self,
        lane: Callable[[], Lane],
        *,
        prefetch: int,
        dead: bool,
        poll_interval_s: float,
        to_rung_ms: Callable[[int], int],
        ring_all: Callable[[], None],
        left_behind: Callable[[], None],
    ) -> None:
        if prefetch < 1:
            raise ValueError("prefetch is at least 1")
        self._lane = lane
        self._prefetch = prefetch
        self._dead = dead
        self._poll_interval_s = poll_interval_s
        self._to_rung_ms = to_rung_ms
        self._ring_all = ring_all
        self._left_behind = left_behind
        self._bell = asyncio.Event()
        self._leasing: Ticket[list[Delivery]] | None = None
        self._asked_for = 0
        self._promised: asyncio.Future[None] | None = None
        self._promised_room = 0
        self._refuses = False
        self._has_caught_up = False
        self._looked_at_s = -inf
        self._arrived: deque[Delivery] = deque()
        self._held: dict[Key, Delivery] = {}
        self._failed: deque[tuple[Settlement, list[Key], bool]] = deque()
        self._is_closed = False
        self._is_receiving = False

    async def receive(self, *, limit: int, timeout_s: float) -> list[Delivery]:
        """Wait for a message, at most ``timeout_s``, then return all that are at hand, at most ``limit``."""
        now_s = asyncio.get_running_loop().time
        deadline_s = now_s() + timeout_s
        self._is_receiving = True
        try:
            while True:
                self._bell.clear()
                await self._lease(limit, max(0.0, deadline_s - now_s()))
                if self._arrived or now_s() >= deadline_s:
                    return [self._arrived.popleft() for _ in range(min(limit, len(self._arrived)))]
                await self._wait_for_something(deadline_s)
        finally:
            self._is_receiving = False

    @property
    def at_hand(self) -> int:
        """How many messages are leased that nobody has received yet; what lies in the file is not known."""
        return len(self._arrived)

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Forget these messages; one that this process no longer holds is skipped.

        When the file cannot be written the consumer repeats it until it can: the caller has nothing to decide.
        """
        await self._settle(partial(SqliteStore.ack, deliveries=list(deliveries)), deliveries, leaves=False)

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        """Hand these back unworked, for any consumer to take at once; their attempt stays as it was.

        What nobody has received yet goes with them, and so does what is on its way: it is younger, and must not come
        before them.
        """
        deliveries = [*deliveries, *self._arrived]
        self._arrived.clear()
        self._has_caught_up = False
        self._refuses = self._promised is not None
        await self._settle(partial(SqliteStore.release, deliveries=list(deliveries)), deliveries, leaves=True)

    async def retry(self, delivery: Delivery, *, delay_ms: int) -> None:
        """Deliver this message again after the smallest rung that is long enough, with its attempt raised.

        Raises ``NotConfirmed`` and leaves it unsettled when that did not become durable.
        """
        headers, rung_ms = raised_headers(delivery), self._to_rung_ms(delay_ms)
        operation = partial(SqliteStore.retry, delivery=delivery, headers=headers, delay_ms=rung_ms)
        ticket = self._submit(operation, [_key(delivery)], is_lasting=True, leaves=True)
        if not await ticket.wait(SETTLE_TIMEOUT_S):
            raise NotConfirmed
        try:
            ticket.future.result()
        except QueueUnavailable as error:
            raise NotConfirmed(str(error)) from error

    async def close(self) -> None:
        """Stop consuming; what was received and not settled goes back to the queue."""
        if self._is_closed:
            return
        self._is_closed = True
        self._bell.set()
        coming: list[asyncio.Future[Any]] = [] if self._leasing is None else [self._leasing.future]
        coming += [] if self._promised is None else [self._promised]
        if coming:
            await asyncio.wait(coming, timeout=SETTLE_TIMEOUT_S)
        self._arrived.clear()
        if self._held:
            await self.release(list(self._held.values()))

    def shut(self) -> None:
        """Take nothing more; whoever stops the queue hands the leases back."""
        self._is_closed = True
        self._arrived.clear()
        self._held.clear()
        self._failed.clear()
        self._bell.set()

    def ring(self) -> None:
        """There may be something to take."""
        self._bell.set()

    def fall_behind(self) -> None:
        """There is something in the file that it has not seen; what is published now comes after that."""
        self._has_caught_up = False
        self._bell.set()

    def waits(self) -> bool:
        """Whether it would take what is published now.

        It waits for it, or is at work and will come for it; it has room, and no older message lies in the file.
        """
        is_free = self._leasing is None and self._promised is None and not self._is_closed
        is_there = self._is_receiving or bool(self._held)
        return is_free and is_there and self._has_caught_up and len(self._held) < self._prefetch

    def promise(self, most: int) -> int:
        """How many of so many messages it will take."""
        self._promised = asyncio.get_running_loop().create_future()
        self._promised_room = min(most, self._prefetch - len(self._held))
        return self._promised_room

    def fulfil(self, deliveries: Sequence[Delivery]) -> None:
        """These are leased, and are its own now."""
        promised, self._promised, self._promised_room = self._promised, None, 0
        refuses, self._refuses = self._refuses, False
        self._hold(deliveries, refuses=refuses)
        if promised is not None and not promised.done():
            promised.set_result(None)

    def is_holding(self) -> bool:
        """Whether it has leases to keep."""
        return bool(self._held)

    def is_done(self) -> bool:
        """Whether it is closed and everything it held is settled."""
        return self._is_closed and not self._held

    def settle_what_failed(self) -> None:
        """Try again the settlements that the file refused."""
        failed, self._failed = self._failed, deque()
        for operation, keys, leaves in failed:
            self._submit_settlement(operation, keys, leaves=leaves)

    async def _lease(self, limit: int, timeout_s: float) -> None:
        """Take what lies in the file, unless it was looked at a short while ago and something is at hand, or coming."""
        room = min(limit, self._prefetch - len(self._held) - self._promised_room)
        now_s = asyncio.get_running_loop().time()
        has_looked = now_s - self._looked_at_s < self._poll_interval_s
        is_served = bool(self._arrived) or (self._has_caught_up and timeout_s > 0)
        if self._leasing is None and not (has_looked and is_served) and room > 0 and not self._is_closed:
            self._asked_for = room
            with contextlib.suppress(QueueUnavailable):
                self._leasing = self._lane().submit(
                    partial(SqliteStore.lease, limit=room, dead=self._dead), is_lasting=False
                )
                self._leasing.future.add_done_callback(self._take)
        if self._leasing is not None and not self._arrived:
            leased = self._leasing.future
            # A first look is worth its moment even when the caller has no time: it finds what is there.
            await asyncio.wait((leased,), timeout=max(timeout_s, self._poll_interval_s))
            if leased.done() and (error := leased.exception()) and not isinstance(error, QueueUnavailable):
                raise error

    def _take(self, leased: asyncio.Future[list[Delivery]]) -> None:
        self._leasing = None
        if leased.cancelled() or leased.exception() is not None:
            return
        deliveries = leased.result()
        self._looked_at_s = asyncio.get_running_loop().time()
        self._has_caught_up = not self._dead and len(deliveries) < self._asked_for
        self._hold(deliveries)

    def _hold(self, deliveries: Sequence[Delivery], *, refuses: bool = False) -> None:
        """Keep these for whoever receives next, or hand them back at once."""
        if not deliveries:
            return
        self._held.update((_key(delivery), delivery) for delivery in deliveries)
        if not self._is_closed and not refuses:
            self._arrived.extend(deliveries)
            self._bell.set()
        else:
            keys = [_key(delivery) for delivery in deliveries]
            self._submit_settlement(partial(SqliteStore.release, deliveries=deliveries), keys, leaves=True)

    async def _wait_for_something(self, deadline_s: float) -> None:
        """Until the bell rings, a look at the file finds something, or the time is over."""
        now_s = asyncio.get_running_loop().time
        while (remaining_s := deadline_s - now_s()) > 0:
            try:
                async with asyncio.timeout(min(remaining_s, self._poll_interval_s)):
                    await self._bell.wait()
                return
            except TimeoutError:
                if await self._finds_something(deadline_s - now_s()):
                    return

    async def _finds_something(self, timeout_s: float) -> bool:
        """One cheap read. It is what finds messages of other processes, and those whose delay is over."""
        if self._is_closed or self._leasing is not None or len(self._held) >= self._prefetch or timeout_s <= 0:
            return self._leasing is not None
        try:
            ticket = self._lane().submit(partial(SqliteStore.wants, dead=self._dead), is_write=False)
        except QueueUnavailable:
            return False
        if not await ticket.wait(timeout_s):
            return False
        return ticket.future.exception() is None and ticket.future.result()

    async def _settle(self, operation: Settlement, deliveries: Sequence[Delivery], *, leaves: bool) -> None:
        ticket = self._submit_settlement(operation, [_key(delivery) for delivery in deliveries], leaves=leaves)
        if ticket is not None:
            await asyncio.wait((ticket.future,), timeout=SETTLE_TIMEOUT_S)

    def _submit_settlement(self, operation: Settlement, keys: list[Key], *, leaves: bool) -> Ticket[None] | None:
        try:
            ticket = self._submit(operation, keys, is_lasting=False, leaves=leaves)
        except QueueUnavailable:
            # The queue was stopped, which handed everything back.
            return None
        ticket.future.add_done_callback(partial(self._remember_failure, operation, keys, leaves))
        return ticket

    def _submit(self, operation: Settlement, keys: list[Key], *, is_lasting: bool, leaves: bool) -> Ticket[None]:
        """``leaves`` says that these messages will lie in the file again."""
        ticket = self._lane().submit(operation, is_lasting=is_lasting)
        ticket.future.add_done_callback(partial(self._forget, keys, leaves))
        return ticket

    def _forget(self, keys: list[Key], leaves: bool, settled: asyncio.Future[None]) -> None:
        """Settled means settled, also when the caller was cancelled meanwhile."""
        if settled.cancelled() or settled.exception() is not None:
            return
        for key in keys:
            self._held.pop(key, None)
        if leaves:
            self._left_behind()
        else:
            self._ring_all()

    def _remember_failure(
        self, operation: Settlement, keys: list[Key], leaves: bool, settled: asyncio.Future[None]
    ) -> None:
        if not settled.cancelled() and isinstance(settled.exception(), QueueUnavailable):
            self._failed.append((operation, keys, leaves))


def _key(delivery: Delivery) -> Key:
    return delivery.tag, delivery.generation
