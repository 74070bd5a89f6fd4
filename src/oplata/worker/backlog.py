"""Handlers for changes that were made elsewhere: by a registration, by hand, by a replay, by a worker without handlers.

Such changes stand in the log as not handled. One worker at a time looks through the log and notes their orders; each
order is then taken up in a transaction of its own, which also says that its change was handled. A failure is tried
again on the delays of the retry ladder, which are kept in the table, and given up as a dead letter after as many tries.
The table says by the wall clock when an order is due. A clock that is set back would have it wait for that much longer,
so every minute what waits for longer than it was put off is made due.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import msgspec
import structlog

from oplata.errors import Contention, HandlerFailed
from oplata.observability.faults import describe
from oplata.storage.changes import Change
from oplata.storage.dead_letters import DeadLetter
from oplata.storage.engine import Database
from oplata.storage.handling import RECALLED_AT_ONCE, Standing
from oplata.worker.batch import HANDLER_FAILED
from oplata.worker.handling import Handling
from oplata.worker.retry import rung_delay_ms
from oplata.worker.stats import Stats

POLL_S = 1.0
RECALL_EVERY_S = 60.0
TAKEN_AT_ONCE = 100
TRANSACTION_TIMEOUT_S = 60.0

CHANGE = "application/vnd.oplata.change+json"
"""The content type of a dead letter that is no message of the queue but a change that its handlers have yet to see."""

log = structlog.get_logger("oplata.worker")


class ChangeName(msgspec.Struct, frozen=True, rename="camel"):
    """Which change; what the body of its dead letter says."""

    order_id: str
    version: int


class Backlog:
    """Runs until ``stopping`` is set. ``pause`` waits a while, longer with each try, or until then."""

    def __init__(
        self,
        *,
        database: Database,
        handling: Handling,
        stats: Stats,
        stopping: asyncio.Event,
        pause: Callable[[int], Awaitable[None]],
        retry_delays_ms: Sequence[int],
        max_attempts: int,
        now_ms: Callable[[], int],
    ) -> None:
        self._database = database
        self._handling = handling
        self._stats = stats
        self._stopping = stopping
        self._pause = pause
        self._retry_delays_ms = retry_delays_ms
        self._max_attempts = max_attempts
        self._now_ms = now_ms
        self._recall_at_s = 0.0

    async def run(self) -> None:
        """Look every second, and go on at once while there is something to do."""
        failures = 0
        while not self._stopping.is_set():
            try:
                found = await self._round()
            except Exception as error:
                # Whatever it is, it may not end the worker, who has callbacks to apply.
                failures += 1
                log.warning("cannot look for changes to handle", action="worker.backlog", error=describe(error))
                await self._pause(failures)
                continue
            failures = 0
            if not found:
                await self._rest()

    async def _round(self) -> bool:
        await self._recall()
        standing, behind = await self._look(), False
        if standing.unscanned:
            async with self._database.unit_of_work() as uow:
                behind = await uow.handling.scan(self._handling.wanted, self._now_ms())
                await uow.commit()
            standing = await self._look()
        done = 0
        for order_id in standing.due:
            if self._stopping.is_set():
                break
            done += await self._take_up(order_id)
        # What was appended since is looked at in a second: each look is a commit, and a busy shop's log never rests. So
        # is an order that another worker has in hand.
        return behind or done > 0

    async def _recall(self) -> None:
        now_s = asyncio.get_running_loop().time()
        if now_s < self._recall_at_s:
            return
        async with self._database.unit_of_work() as uow:
            recalled = await uow.handling.recall((0, *self._retry_delays_ms), self._now_ms())
            await uow.commit()
        if recalled < RECALLED_AT_ONCE:
            self._recall_at_s = now_s + RECALL_EVERY_S
        if recalled:
            log.warning("a clock was set back under changes that wait", action="worker.backlog", orders=recalled)

    async def _look(self) -> Standing:
        async with self._database.unit_of_work(read_only=True) as uow:
            standing = await uow.handling.standing(self._now_ms(), limit=TAKEN_AT_ONCE)
        if not standing.begun:
            await begin(self._database)
        return standing

    async def _take_up(self, order_id: str) -> bool:
        """Whether the backlog has changed by it."""
        try:
            return await self._handle_next(order_id)
        except HandlerFailed as error:
            # A handler's statement fails as well when the database has gone; that costs no attempt.
            await self._database.probe()
            log.warning("a change waits for its handlers", action="worker.handler", error=describe(error))
            await self._failed(order_id, error)
            return True
        except Contention as error:
            log.warning("a change waits for its order", action="worker.backlog", error=describe(error))
            return False

    async def _handle_next(self, order_id: str) -> bool:
        """Handle the order's first outstanding change, if there is one: whoever held the order may have done so.

        False when the order is not ours to take up.
        """
        at_ms = self._now_ms()
        try:
            async with asyncio.timeout(TRANSACTION_TIMEOUT_S), self._database.unit_of_work() as uow:
                if await uow.handling.claim(order_id, at_ms) is None:
                    return False
                await uow.orders.lock([order_id], at_ms)
                waiting = await uow.handling.outstanding([order_id], self._handling.wanted)
                if waiting:
                    await self._handling.run(uow, waiting[0])
                    await uow.handling.mark(waiting[:1], handled=True)
                if len(waiting) > 1:
                    await uow.handling.put_off(order_id, due_at_ms=at_ms, attempts=0)
                else:
                    await uow.handling.forget(order_id)
                await uow.commit()
        except TimeoutError:
            raise Contention(f"an order's handlers took longer than {TRANSACTION_TIMEOUT_S:.0f} s") from None
        self._stats.handled += bool(waiting)
        return True

    async def _failed(self, order_id: str, error: HandlerFailed) -> None:
        at_ms = self._now_ms()
        async with self._database.unit_of_work() as uow:
            attempts = await uow.handling.claim(order_id, at_ms)
            if attempts is None:
                return
            if attempts + 1 < self._max_attempts:
                delay_ms = rung_delay_ms(attempts + 1, self._retry_delays_ms)
                await uow.handling.put_off(order_id, due_at_ms=at_ms + delay_ms, attempts=attempts + 1)
                await uow.commit()
                return
            await uow.orders.lock([order_id], at_ms)
            waiting = await uow.handling.outstanding([order_id], self._handling.wanted)
            given_up = [change for change in waiting if change.version == error.version]
            await uow.handling.mark(given_up, handled=False)
            await uow.handling.put_off(order_id, due_at_ms=at_ms, attempts=0)
            await uow.dead_letters.bury([_letter(change, error, attempts + 1, at_ms) for change in given_up])
            await uow.commit()
        self._stats.handlers_given_up += len(given_up)
        log.error("handlers given up", action="worker.bury", reason=HANDLER_FAILED, order_id=order_id)

    async def _rest(self) -> None:
        try:
            async with asyncio.timeout(POLL_S):
                await self._stopping.wait()
        except TimeoutError:
            return


async def begin(database: Database) -> None:
    """Have handlers hear of what changes from now on; nothing, if they have begun already."""
    async with database.unit_of_work() as uow:
        await uow.handling.begin()
        await uow.commit()


def change_of(letter: DeadLetter) -> ChangeName | None:
    """The change that a dead letter of ours stands for; None for one that is a message."""
    if letter.reason != HANDLER_FAILED or letter.content_type != CHANGE:
        return None
    try:
        return msgspec.json.decode(letter.body, type=ChangeName)
    except msgspec.MsgspecError:  # A message may say that it is of any type.
        return None


def _letter(change: Change, error: HandlerFailed, attempts: int, at_ms: int) -> DeadLetter:
    return DeadLetter(
        reason=HANDLER_FAILED,
        detail=str(error),
        body=msgspec.json.encode(ChangeName(change.order_id, change.version)),
        content_type=CHANGE,
        headers={},
        order_id=change.order_id,
        verified=True,
        attempts=attempts,
        seen_at_ms=at_ms,
    )
