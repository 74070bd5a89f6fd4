"""Group commit: whoever waits for the SQLite file shares one transaction, and so one sync of the disk.

A group that only leases, acks and hands back is not synced at all: when the power fails before the next sync, those
messages are delivered once more, which is harmless anyway. What is published or put off waits for the disk.

All work on the file passes through one lane, a group at a time. A caller hears of success only after the commit of
its group. The thread that the groups run in is an argument, so that a simulation can run them inline.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Generic, Protocol, TypeVar

from oplata.errors import OplataError, QueueUnavailable
from oplata.queue.envelope import Delivery
from oplata.queue.sqlite import file as sqlite_file
from oplata.queue.sqlite.publishing import Row
from oplata.queue.sqlite.store import SqliteStore

GROUP_LIMIT = 500
"""How many operations share a transaction at most."""

OPEN_TIMEOUT_S = 2.0
REFUSED_PAUSE_S = 0.01

T = TypeVar("T")


class Runner(Protocol):
    """Where the work on the file is done, one piece after the other."""

    async def run(self, work: Callable[[], T]) -> T:
        """Do it and return what it returns."""

    def close(self) -> None:
        """Take no more work."""


class OneThread:
    """A thread of its own, so that the event loop never waits for the disk."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="oplata-sqlite")
        self._is_idle: Callable[[], bool] = lambda: True

    async def run(self, work: Callable[[], T]) -> T:
        future = self._executor.submit(work)
        self._is_idle = future.done
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        # An idle thread ends at once; one that hangs in the disk is not waited for.
        self._executor.shutdown(wait=self._is_idle(), cancel_futures=True)


class Inline:
    """In the event loop itself: for a simulation that owns every step."""

    async def run(self, work: Callable[[], T]) -> T:
        return work()

    def close(self) -> None:
        pass


class Taker(Protocol):
    """A consumer that is given messages as they are published."""

    def promise(self, most: int) -> int:
        """How many of so many it will take. It is told with ``fulfil`` what became of them."""

    def fulfil(self, deliveries: Sequence[Delivery]) -> None:
        """These are leased, and are its own now."""


class Publishing:
    """The operation that appends a message. Those of a group share one statement."""

    def __init__(self, row: Row) -> None:
        self.row = row
        self.hands_over = False

    def __call__(self, store: SqliteStore) -> Delivery | None:
        """By itself, when it cannot be had with the others."""
        return store.publish(self.row, hands_over=self.hands_over)


class Ticket(Generic[T]):
    """An operation that waits for its group, and the future of its result."""

    def __init__(
        self, operation: Callable[[SqliteStore], T], *, is_write: bool, is_publish: bool, is_lasting: bool
    ) -> None:
        self.operation = operation
        self.is_lasting = is_lasting
        self.is_write = is_write
        self.is_publish = is_publish
        self.is_abandoned = False
        self.future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self.future.add_done_callback(_retrieve)

    async def wait(self, timeout_s: float) -> bool:
        """Whether there is a result in time. When not, or when cancelled, what has not begun never will."""
        try:
            await asyncio.wait((self.future,), timeout=timeout_s)
        finally:
            self.is_abandoned = not self.future.done()
        return self.future.done()


class Refused(Exception):
    """The lock of the file was not granted; nothing was written and the group may come again."""


class Lane:
    """Carries operations to the store in groups."""

    def __init__(
        self,
        store: SqliteStore,
        runner: Runner,
        *,
        taker: Callable[[], Taker | None] = lambda: None,
        left_behind: Callable[[], None] = lambda: None,
    ) -> None:
        """``taker`` tells who waits for messages; ``left_behind`` is called when some lie in the file for anybody."""
        self._store = store
        self._runner = runner
        self._taker = taker
        self._left_behind = left_behind
        self._waiting: deque[Ticket[object]] = deque()
        self._flight: asyncio.Task[None] | None = None
        self._is_closed = False
        self.publishing = 0
        """Publishes that have no result yet, abandoned ones included: what bounds the memory."""
        self.commits = 0
        """Transactions that changed something."""

    def submit(
        self,
        operation: Callable[[SqliteStore], T],
        *,
        is_write: bool = True,
        is_publish: bool = False,
        is_lasting: bool = True,
    ) -> Ticket[T]:
        """Line an operation up. Its future fails with ``QueueUnavailable`` or a ``Permanent`` error.

        An operation that is not a write runs outside a transaction. One that is not lasting may be undone by a loss of
        power, though never by a death of processes.
        """
        if self._is_closed:
            raise QueueUnavailable("The SQLite queue is stopped; start it first.")
        ticket: Ticket[T] = Ticket(operation, is_write=is_write, is_publish=is_publish, is_lasting=is_lasting)
        self.publishing += is_publish
        self._waiting.append(ticket)  # type: ignore[arg-type]  # The deque holds tickets of every type.
        if self._flight is None:
            # The task begins after all who are ready now have lined up too: that is what makes the group.
            self._flight = asyncio.get_running_loop().create_task(self._fly())
        return ticket

    async def open(self) -> None:
        """Open the file. Raises ``Permanent``; what may pass is left to the operations."""
        ticket = self.submit(_open, is_write=False)
        if await ticket.wait(OPEN_TIMEOUT_S):
            with contextlib.suppress(QueueUnavailable):
                ticket.future.result()

    async def close(self, *, timeout_s: float) -> None:
        """Finish what waits, then leave the store; both within ``timeout_s`` each."""
        self._is_closed = True
        if self._flight is not None:
            await asyncio.wait((self._flight,), timeout=timeout_s)
        if self._flight is not None:
            self._flight.cancel()
            await asyncio.wait((self._flight,), timeout=timeout_s)
        leaving = asyncio.ensure_future(self._runner.run(partial(_leave, self._store)))
        await asyncio.wait((leaving,), timeout=timeout_s)
        self._runner.close()

    def abandon(self) -> None:
        """Begin nothing more, and fail all who wait."""
        self._is_closed = True
        if self._flight is not None:
            self._flight.cancel()
        self._fail_all_who_wait()
        self._runner.close()

    async def _fly(self) -> None:
        try:
            while self._waiting:
                group = self._next_group()
                try:
                    await self._carry(group)
                finally:
                    self.publishing -= sum(ticket.is_publish for ticket in group if ticket.future.done())
                    self._waiting.extendleft(ticket for ticket in reversed(group) if not ticket.future.done())
                # Whoever hears of a result now may have a say in the next group: a consumer that has caught up, say.
                await asyncio.sleep(0)
        finally:
            self._flight = None
            if self._is_closed:
                self._fail_all_who_wait()

    def _next_group(self) -> list[Ticket[object]]:
        group: list[Ticket[object]] = []
        while self._waiting and len(group) < GROUP_LIMIT:
            ticket = self._waiting.popleft()
            if ticket.is_abandoned or ticket.future.done():
                self.publishing -= ticket.is_publish
                ticket.future.cancel()
            else:
                group.append(ticket)
        return group

    async def _carry(self, group: Sequence[Ticket[object]]) -> None:
        reads = [ticket for ticket in group if not ticket.is_write]
        publishes = [ticket for ticket in group if ticket.is_publish]
        writes = publishes + [ticket for ticket in group if ticket.is_write and not ticket.is_publish]
        work = partial(
            transact,
            self._store,
            [ticket.operation for ticket in reads],
            [ticket.operation for ticket in writes],
            is_synced=any(ticket.is_lasting for ticket in writes),
        )
        taker = self._taker() if publishes else None
        promised = 0 if taker is None else taker.promise(len(publishes))
        for number, ticket in enumerate(publishes):
            if isinstance(ticket.operation, Publishing):
                ticket.operation.hands_over = number < promised
        handed_over: list[Delivery] = []
        try:
            outcomes, commits = await self._runner.run(work)
            handed_over = [outcome for outcome in outcomes[len(reads) :] if isinstance(outcome, Delivery)]
        except Refused:
            # SQLite does not always wait for a lock by itself, so this pause keeps the loop from spinning.
            await asyncio.sleep(REFUSED_PAUSE_S)
            return
        except Exception as error:
            for ticket in group:
                _settle(ticket.future, error)
            return
        finally:
            if taker is not None:
                taker.fulfil(handed_over)
        self.commits += commits
        for ticket, outcome in zip((*reads, *writes), outcomes, strict=True):
            _settle(ticket.future, outcome)
        if len(handed_over) < len(publishes):
            self._left_behind()

    def _fail_all_who_wait(self) -> None:
        while self._waiting:
            ticket = self._waiting.popleft()
            self.publishing -= ticket.is_publish
            _settle(ticket.future, QueueUnavailable("The SQLite queue was stopped."))


Operation = Callable[[SqliteStore], object]


def transact(
    store: SqliteStore, reads: Sequence[Operation], writes: Sequence[Operation], *, is_synced: bool = True
) -> tuple[list[object], int]:
    """Run the reads, then the writes in one transaction. Return each one's value or error, and how often it committed.

    ``is_synced`` says whether the commit waits for the disk.

    Raises ``Refused`` when another process holds the lock.
    """
    outcomes = [_attempt(store, operation) for operation in reads]
    if not writes:
        return outcomes, 0
    try:
        values, commits = _commit_together(store, writes, is_synced=is_synced)
    except (sqlite3.Error, OSError, OplataError) as error:
        if sqlite_file.is_busy(error):
            raise Refused from error
        values, commits = _after_a_failure(store, writes, error)
    return outcomes + values, commits


def _commit_together(
    store: SqliteStore, writes: Sequence[Operation], *, is_synced: bool = True
) -> tuple[list[object], int]:
    connection = store.open()
    connection.execute(f"PRAGMA synchronous = {'FULL' if is_synced else 'NORMAL'}")
    before = connection.total_changes
    connection.execute("BEGIN IMMEDIATE")
    try:
        values = _of_group(store, writes)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return values, int(connection.total_changes > before)


def _of_group(store: SqliteStore, writes: Sequence[Operation]) -> list[object]:
    """The publishes that lead the group together, and then what follows them one by one."""
    publishes = list(_leading(writes))
    values: list[object] = []
    if len(publishes) > 1:
        try:
            hand_over = sum(each.hands_over for each in publishes)
            values += store.publish_all([each.row for each in publishes], hand_over=hand_over)
        except Exception as error:
            # One of them is refused by itself; the statement has left nothing behind, and each comes alone.
            if not sqlite_file.is_about_one_message(error):
                raise
    return values + [_one_of_group(store, operation) for operation in writes[len(values) :]]


def _leading(writes: Sequence[Operation]) -> Iterator[Publishing]:
    for each in writes:
        if not isinstance(each, Publishing):
            return
        yield each


def _one_of_group(store: SqliteStore, operation: Operation) -> object:
    """What is refused because of one message fails that message and not its neighbours."""
    try:
        return operation(store)
    except Exception as error:
        if isinstance(error, OplataError) or sqlite_file.is_about_one_message(error):
            return sqlite_file.to_oplata_error(error, store.path)
        raise


def _after_a_failure(store: SqliteStore, writes: Sequence[Operation], error: Exception) -> tuple[list[object], int]:
    """Without room, each may come alone: a deletion succeeds where a large message does not."""
    if sqlite_file.is_full(error) and len(writes) > 1:
        each = [_commit_alone(store, operation) for operation in writes]
        return [value for value, _ in each], sum(commits for _, commits in each)
    if not sqlite_file.is_full(error):
        store.disconnect()
    return [sqlite_file.to_oplata_error(error, store.path)] * len(writes), 0


def _commit_alone(store: SqliteStore, write: Operation) -> tuple[object, int]:
    try:
        values, commits = _commit_together(store, [write])
    except (sqlite3.Error, OSError, OplataError) as error:
        return sqlite_file.to_oplata_error(error, store.path), 0
    return values[0], commits


def _attempt(store: SqliteStore, operation: Operation) -> object:
    try:
        return operation(store)
    except (sqlite3.Error, OSError, OplataError) as error:
        if not sqlite_file.is_busy(error):
            store.disconnect()
        return sqlite_file.to_oplata_error(error, store.path)


def _open(store: SqliteStore) -> None:
    store.open()


def _leave(store: SqliteStore) -> None:
    try:
        store.leave()
    except (sqlite3.Error, OSError, OplataError):
        # The seat's lock is gone in any case, so whoever comes next takes the messages back.
        store.disconnect()


def _settle(future: asyncio.Future[T], outcome: object) -> None:
    """Whoever waited for it may have left."""
    if future.done():
        return
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)  # type: ignore[arg-type]  # It is what the ticket's own operation returned.


def _retrieve(future: asyncio.Future[T]) -> None:
    """Look at the exception, so that a caller who has left is not reported as one who forgot it."""
    if not future.cancelled():
        future.exception()
