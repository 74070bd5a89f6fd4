"""One reader of the change log in each process, and any number of subscribers on it."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing
from typing import TypeVar

import structlog

from oplata.errors import FeedUnavailable, OplataError
from oplata.feed.changes import PAGE, ChangeReader, Told
from oplata.feed.patience import wait_for
from oplata.feed.recent import Recent
from oplata.observability.faults import describe
from oplata.queue.backoff import delay_s
from oplata.storage.engine import Database

T = TypeVar("T")

RECENT_LIMIT = 10_000
MAX_SUBSCRIBERS = 20_000
LOG_READERS = 2
"""How many subscribers may read from the log at the same moment. After a restart they all come at once."""

POLL_S = 0.5
"""How often the reader looks when nothing wakes it: a pooler may swallow notifications, a clock may stand still."""

GAP_S = 0.01
"""Two looks are at least so far apart: many small commits are told together, and wake each subscriber once."""

_BACKOFF_BASE_S = 0.05
_BACKOFF_CAP_S = 1.0
_STEADY_S = 5.0
"""What went well for so long begins to count its failures anew."""

log = structlog.get_logger("oplata.feed")


class Hub:
    """Tells changes to subscribers. Nothing is read before the first of them comes.

    A database that is away is waited for, and every subscriber goes on where it was. ``recent_limit`` bounds the memory
    for changes, whatever the subscribers do.
    """

    def __init__(
        self,
        database: Database,
        *,
        recent_limit: int = RECENT_LIMIT,
        max_subscribers: int = MAX_SUBSCRIBERS,
        poll_s: float = POLL_S,
        rng: random.Random | None = None,
    ) -> None:
        self._database = database
        self._reader = ChangeReader(database)
        self._recent_limit = recent_limit
        self._max_subscribers = max_subscribers
        self._poll_s = poll_s
        self._rng = rng or random.Random()  # noqa: S311  Jitter is no secret.
        self._recent: Recent | None = None
        self._log_readers = asyncio.Semaphore(LOG_READERS)
        self._woken = asyncio.Event()
        self._begun = asyncio.Event()
        self._stopping = asyncio.Event()
        self._stopping.set()
        self._tasks: list[asyncio.Task[None]] = []
        # Who waits for what: an order's changes, or under None everyone's. Each is told after which id to look.
        self._waiting: dict[str | None, set[asyncio.Future[int]]] = {}
        self.subscribers = 0

    async def start(self) -> None:
        """Let subscribers come. The database may be away."""
        if self._stopping.is_set():
            self._stopping, self._begun = asyncio.Event(), asyncio.Event()
            self._recent = None

    async def stop(self) -> None:
        """End every subscription and stop reading."""
        self._stopping.set()
        self._begun.set()
        self._tell(set(self._waiting), 0)
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def wake(self) -> None:
        """Say that changes may have been committed. May be called at any time; costs nothing when it is for nothing."""
        self._woken.set()

    @property
    def last_id(self) -> int | None:
        """The id of the last change that was read; None before the first look."""
        return None if self._recent is None else self._recent.last_id

    async def subscribe(self, *, after: int | None = None, order_id: str | None = None) -> AsyncGenerator[Told, None]:
        """Every change with a higher id than ``after``, from the log and then as it comes; without it, from now on.

        There is neither a gap nor a repeat. Of one order, or of all. An id that the log has not reached is taken for
        its end. The generator ends when the hub is stopped. Raises ``FeedUnavailable`` when there are too many
        subscribers; a database that is away is waited for. Close it (``aclosing``) when you leave.
        """
        async with aclosing(self.pages(after=after, order_id=order_id)) as pages:
            async for page in pages:
                for told in page:
                    yield told

    async def pages(
        self, *, after: int | None = None, order_id: str | None = None, limit: int = PAGE
    ) -> AsyncGenerator[Sequence[Told], None]:
        """As ``subscribe``, but all that is at hand together, at most so many. No page is empty."""
        stopping = self._stopping
        with self._seated():
            await self._begun.wait()
            cursor = await self._beginning(after, stopping)
            while not stopping.is_set():
                page = self._known.after(cursor, limit=limit)
                if page is None:
                    told, cursor = await self._older(cursor, order_id, limit, stopping)
                elif page:
                    told, cursor = _of(page, order_id), page[-1][0]
                else:
                    told = page
                if told:
                    yield told
                elif cursor >= self._known.last_id and not stopping.is_set():
                    cursor = max(cursor, await self._until_told(order_id))

    @contextlib.contextmanager
    def _seated(self) -> Iterator[None]:
        if self._stopping.is_set():
            raise FeedUnavailable("the feed was stopped; connect again")
        if self.subscribers >= self._max_subscribers:
            raise FeedUnavailable(f"the feed has {self.subscribers} subscribers, and takes no more; try again later")
        if not self._tasks:
            self._tasks = [
                asyncio.create_task(self._keep(self._read), name="oplata-feed-reader"),
                asyncio.create_task(self._keep(self._listen), name="oplata-feed-listener"),
            ]
        self.subscribers += 1
        try:
            yield
        finally:
            self.subscribers -= 1

    @property
    def _known(self) -> Recent:
        assert self._recent is not None  # noqa: S101  Whoever asks has waited for ``_begun``.
        return self._recent

    async def _beginning(self, after: int | None, stopping: asyncio.Event) -> int:
        """The id after which a subscriber begins. Negative ones mean the beginning of the log."""
        if stopping.is_set():
            return 0
        if after is None:
            return self._known.last_id
        if after > self._known.last_id:
            # Another process may have read further than we have; but the log may also have been restored to less.
            last_id = await self._from_log(self._reader.last_id, stopping)
            return after if last_id is None else min(after, last_id)
        return after

    async def _older(
        self, cursor: int, order_id: str | None, limit: int, stopping: asyncio.Event
    ) -> tuple[Sequence[Told], int]:
        """What follows the cursor in the log and concerns this subscriber, and how far that reaches."""
        known_id = self._known.last_id
        found = await self._from_log(lambda: self._reader.after(cursor, order_id=order_id, limit=limit), stopping)
        if found is None:
            return (), cursor
        if len(found) == limit:
            return found, found[-1][0]
        # A page that is not full held all there was, and that was at least what had been read before we asked.
        return found, max(known_id, found[-1][0] if found else cursor)

    async def _from_log(self, ask: Callable[[], Awaitable[T]], stopping: asyncio.Event) -> T | None:
        """What the log says, however long the database is away; None when the hub is stopped meanwhile."""
        failures = 0
        while not stopping.is_set():
            try:
                async with self._log_readers:
                    return await ask()
            except OplataError as error:
                failures += 1
                log.warning("a subscriber waits for the log", action="feed.catch_up", error=describe(error))
                await wait_for(stopping, self._delay_s(failures))
        return None

    async def _until_told(self, order_id: str | None) -> int:
        """Wait until there is news; returns the id after which to look for it."""
        waiting = self._waiting.setdefault(order_id, set())
        told: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        waiting.add(told)
        try:
            return await told
        finally:
            waiting.discard(told)
            if not waiting and self._waiting.get(order_id) is waiting:
                del self._waiting[order_id]

    def _tell(self, whom: set[str | None], after_id: int) -> None:
        for each in whom & self._waiting.keys():
            for told in self._waiting.pop(each):
                if not told.done():
                    told.set_result(after_id)

    async def _keep(self, step: Callable[[], Awaitable[None]]) -> None:
        """Do a step over and over; after a failure, a while later."""
        failures, now_s = 0, asyncio.get_running_loop().time
        while True:
            began_s = now_s()
            try:
                await step()
                failures = 0
            except OplataError as error:
                failures = 1 if now_s() - began_s > _STEADY_S else failures + 1
                log.warning("the feed waits", action=f"feed.{step.__name__[1:]}", tries=failures, error=describe(error))
                await asyncio.sleep(self._delay_s(failures))
            except Exception:
                # A fault of ours must not silence the feed for good.
                failures += 1
                log.exception("the feed stumbled", action=f"feed.{step.__name__[1:]}", tries=failures)
                await asyncio.sleep(self._delay_s(failures))

    def _delay_s(self, failures: int) -> float:
        return _BACKOFF_BASE_S + delay_s(failures, self._rng, _BACKOFF_BASE_S, _BACKOFF_CAP_S)

    async def _listen(self) -> None:
        await self._database.listen(self.wake)

    async def _read(self) -> None:
        """One look at the log: tell what is new, or wait until there may be something."""
        self._woken.clear()
        if self._recent is None:
            self._begin(await self._reader.newest(limit=self._recent_limit))
        page = await self._reader.after(self._known.last_id)
        if page:
            after_id = self._known.last_id
            self._known.add(page)
            self._tell({None, *(change.order_id for _, change in page)}, after_id)
        await asyncio.sleep(GAP_S)
        if len(page) < PAGE:
            await wait_for(self._woken, self._poll_s)

    def _begin(self, newest: Sequence[Told]) -> None:
        """Hold what was told last, for those who come back after a restart of this process."""
        whole = len(newest) < self._recent_limit
        self._recent = Recent(0 if whole else newest[0][0], limit=self._recent_limit)
        self._recent.add(newest if whole else newest[1:])
        self._begun.set()


def _of(page: Sequence[Told], order_id: str | None) -> Sequence[Told]:
    return page if order_id is None else [told for told in page if told[1].order_id == order_id]
