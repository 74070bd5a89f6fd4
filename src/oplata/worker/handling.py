"""Runs the shop's handlers inside a transaction of the worker's, each for a limited time."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Sequence

import structlog

from oplata.errors import Contention, HandlerFailed, OplataError
from oplata.observability.faults import MAX_CAUSES
from oplata.storage.changes import Change
from oplata.storage.handling import Wanted
from oplata.storage.transaction import Transaction
from oplata.storage.unit_of_work import UnitOfWork
from oplata.worker.handlers import Handler, Handlers, name_of

DEFAULT_TIMEOUT_S = 5.0
BUDGET_S = 5.0
"""A batch whose handlers have taken this long together, and are not done, is cut in two: it holds its orders' rows."""

STUBBORN_S = 1.0
"""How long a handler that was cancelled may take to leave."""

MAX_FRAMES = 8

log = structlog.get_logger("oplata.worker")


class Handling:
    """``handlers``, each call of them bounded by ``timeout_s``."""

    def __init__(self, handlers: Handlers, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        self._handlers = handlers
        self._timeout_s = timeout_s
        # Handlers that were told to leave and did not; the event loop itself would forget them half done.
        self._stubborn: set[asyncio.Task[None]] = set()

    @property
    def wanted(self) -> Wanted:
        """The changes that any handler hears of."""
        return self._handlers.wanted

    async def batch(self, uow: UnitOfWork, told: Sequence[Change]) -> None:
        """Run the handlers for the changes of a batch, and before them for what its orders have outstanding."""
        await self._all(uow, told, BUDGET_S)

    async def alone(self, uow: UnitOfWork, told: Sequence[Change]) -> None:
        """As ``batch``, for the changes of one message: they take the time that they take."""
        await self._all(uow, told, None)

    async def _all(self, uow: UnitOfWork, told: Sequence[Change], budget_s: float | None) -> None:
        wanted = [change for change in told if self.wanted.holds(change)]
        # A change that was made elsewhere, by a registration say, may wait for its handlers still: it comes first.
        grown = [change.order_id for change in wanted if change.version > 1]
        earlier = await uow.handling.outstanding(grown, self.wanted) if grown else []
        queue = sorted([*earlier, *wanted], key=lambda change: (change.order_id, change.version))
        now_s = asyncio.get_running_loop().time
        began_s = now_s()
        for place, change in enumerate(queue):
            await self.run(uow, change)
            if budget_s is not None and now_s() - began_s > budget_s and place + 1 < len(queue):
                raise HandlerFailed(f"the handlers of a batch took longer than {budget_s:g} s together")
        await uow.handling.mark(earlier, handled=True)

    async def run(self, uow: UnitOfWork, change: Change) -> None:
        """Run the handlers of one change. Raises ``HandlerFailed``; ``Contention`` where trying again at once helps."""
        for handler in self._handlers.of(change):
            await self._run(uow, handler, change)

    async def _run(self, uow: UnitOfWork, handler: Handler, change: Change) -> None:
        try:
            async with uow.lend() as tx:
                await self._bounded(handler, change, tx)
        except (HandlerFailed, Contention):
            raise
        except OplataError as error:
            # A statement failed, and the handler did not let on.
            raise _failed(handler, change, _told(error)) from error

    async def _bounded(self, handler: Handler, change: Change, tx: Transaction) -> None:
        task = asyncio.ensure_future(_guarded(handler, change, tx))
        try:
            await asyncio.wait({task}, timeout=self._timeout_s)
        finally:
            late = not task.done()
            if late:
                await self._end(task)
        if late:
            raise _failed(handler, change, f"it took longer than {self._timeout_s:g} s")
        if task.cancelled():
            raise _failed(handler, change, "it was cancelled")
        error = task.exception()
        if isinstance(error, Contention):
            raise error
        if error is not None:
            raise _failed(handler, change, _told(error)) from error

    async def _end(self, task: asyncio.Task[None]) -> None:
        """Cancel it, and wait for a moment. One that goes on has no transaction any more."""
        task.cancel()
        await asyncio.wait({task}, timeout=STUBBORN_S)
        if not task.done():
            self._stubborn.add(task)
            task.add_done_callback(self._forget)
            log.error("a handler does not leave", action="worker.handler")

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._stubborn.discard(task)
        if not task.cancelled():
            task.exception()  # Looked at, or asyncio complains that nobody did.


async def _guarded(handler: Handler, change: Change, tx: Transaction) -> None:
    try:
        await handler(change, tx)
    except (KeyboardInterrupt, SystemExit) as error:
        # These two would end the event loop; a handler may fail, and not stop the worker.
        raise RuntimeError(type(error).__name__) from error


def _failed(handler: Handler, change: Change, how: str) -> HandlerFailed:
    return HandlerFailed(
        f"{name_of(handler)} failed on change {change.version} of order {change.order_id}: {how}",
        order_id=change.order_id,
        version=change.version,
    )


def _told(error: BaseException) -> str:
    """Of which type it and its causes are, and where it was raised; of our own errors what they say.

    Never what a stranger's says: it may hold data.
    """
    kinds: list[str] = []
    cause: BaseException | None = error
    while cause is not None and len(kinds) < MAX_CAUSES:
        kinds.append(
            f"{type(cause).__qualname__}: {cause}" if isinstance(cause, OplataError) else type(cause).__qualname__
        )
        cause = cause.__cause__ or cause.__context__
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if frame.filename != __file__]
    return " from ".join(kinds) + "\n" + "".join(traceback.format_list(theirs[-MAX_FRAMES:]))
