"""Which changes the shop's handlers have yet to see: those that were not made by a worker that runs them."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from sqlalchemy import BigInteger, ColumnElement, case, delete, func, literal, or_, select, true, update

from oplata.storage.changes import Change
from oplata.storage.session import Session
from oplata.storage.tables import changes, handler_backlog, handler_state

SCANNED_AT_ONCE = 10_000
"""Ids of the change log that one scan covers."""

RECALLED_AT_ONCE = 10_000
CLOCK_SLACK_MS = 60_000
"""Clocks of two machines may differ by this; a time that is further ahead was written before a clock was set back."""

_ONLY = 1
_TOLD = tuple(changes.c[name] for name in Change.__struct_fields__)
_BEGUN = select(handler_state.c.begun_after_id).scalar_subquery()


class Wanted(msgspec.Struct, frozen=True):
    """Which changes somebody waits for: those by which an order comes to one of these statuses; None is every one."""

    statuses: frozenset[str] | None

    def holds(self, change: Change) -> bool:
        """Whether this change is one of them."""
        return self.statuses is None or (change.status in self.statuses and change.status != change.previous_status)

    def clause(self) -> ColumnElement[bool]:
        """``holds`` as a condition on ``changes``."""
        if self.statuses is None:
            return true()
        came = or_(changes.c.previous_status.is_(None), changes.c.previous_status != changes.c.status)
        return came & changes.c.status.in_(sorted(self.statuses))


class Standing(msgspec.Struct, frozen=True):
    """What there is to do: ``unscanned`` changes to look at, orders that are ``due``."""

    begun: bool
    unscanned: bool
    due: Sequence[str]


class Waiting(msgspec.Struct, frozen=True):
    """What waits for the handlers: so many ``orders``, and since when something is due; None where nothing is."""

    orders: int
    due_since_ms: int | None

    def late_s(self, now_ms: int) -> float:
        """For how long the first of it has been due; 0 where nothing is."""
        return 0.0 if self.due_since_ms is None else max(0, now_ms - self.due_since_ms) / 1000


class Handling:
    """Reads and writes ``handler_state``, ``handler_backlog``, and ``changes.handled``."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def begin(self) -> None:
        """Have handlers hear of what changes from now on; nothing, if they have begun already."""
        newest = select(func.coalesce(func.max(changes.c.id), 0)).scalar_subquery()
        given = select(literal(_ONLY), newest, newest)
        statement = self._session.insert(handler_state).from_select(["id", "begun_after_id", "scanned_to_id"], given)
        await self._session.execute(statement.on_conflict_do_nothing(index_elements=[handler_state.c.id]))

    async def standing(self, now_ms: int, *, limit: int) -> Standing:
        """Look, and lock nothing."""
        newest = select(func.coalesce(func.max(changes.c.id), 0)).scalar_subquery()
        row = (await self._session.execute(select(handler_state.c.scanned_to_id, newest.label("newest")))).first()
        due = (
            select(handler_backlog.c.order_id)
            .where(handler_backlog.c.due_at_ms <= now_ms)
            .order_by(handler_backlog.c.due_at_ms, handler_backlog.c.order_id)
            .limit(limit)
        )
        orders = list((await self._session.execute(due)).scalars())
        return Standing(row is not None, row is not None and row.newest > row.scanned_to_id, orders)

    async def waiting(self, *, limit: int) -> Waiting | None:
        """What waits, by three looks into an index; its orders are counted up to a limit. None without handlers.

        A change that nobody has looked at yet is due since it was made, whether handlers will want it or not.
        """
        some = select(handler_backlog.c.order_id).limit(limit).subquery()
        orders = select(func.count()).select_from(some).scalar_subquery()
        due = select(func.min(handler_backlog.c.due_at_ms)).scalar_subquery()
        unseen = changes.c.id > handler_state.c.scanned_to_id
        made = select(changes.c.changed_at_ms).where(unseen).order_by(changes.c.id).limit(1)
        asked = (orders.label("orders"), due.label("due_at_ms"), made.scalar_subquery().label("made_at_ms"))
        row = (await self._session.execute(select(*asked).select_from(handler_state))).first()
        if row is None:
            return None
        since = [at_ms for at_ms in (row.due_at_ms, row.made_at_ms) if at_ms is not None]
        return Waiting(row.orders, min(since, default=None))

    async def scan(self, wanted: Wanted, now_ms: int) -> bool:
        """Put the orders of the next changes that nobody has handled into the backlog; True when there are more.

        One does it at a time.
        """
        held = select(handler_state.c.scanned_to_id).with_for_update(skip_locked=True)
        scanned = (await self._session.execute(held)).scalar_one_or_none()
        if scanned is None:
            return False
        # Ids rise in the order of the commits, so below the newest one that is seen none is still to come.
        newest = (await self._session.execute(select(func.coalesce(func.max(changes.c.id), 0)))).scalar_one()
        upto = min(newest, scanned + SCANNED_AT_ONCE)
        found = (
            select(changes.c.order_id, literal(now_ms), literal(0))
            .where(changes.c.id > scanned, changes.c.id <= upto, changes.c.handled.is_(None), wanted.clause())
            .distinct()
        )
        statement = self._session.insert(handler_backlog).from_select(["order_id", "due_at_ms", "attempts"], found)
        await self._session.execute(statement.on_conflict_do_nothing(index_elements=[handler_backlog.c.order_id]))
        await self._session.execute(update(handler_state).values(scanned_to_id=upto))
        return bool(upto < newest)

    async def claim(self, order_id: str, now_ms: int) -> int | None:
        """Hold this order's place in the backlog; returns its attempts. None when it is not due or somebody has it."""
        statement = (
            select(handler_backlog.c.attempts)
            .where(handler_backlog.c.order_id == order_id, handler_backlog.c.due_at_ms <= now_ms)
            .with_for_update(skip_locked=True)
        )
        attempts: int | None = (await self._session.execute(statement)).scalar_one_or_none()
        return attempts

    async def outstanding(self, order_ids: Sequence[str], wanted: Wanted) -> list[Change]:
        """The changes of these locked orders that handlers have yet to see, by order and version."""
        given = self._session.source((changes.c.order_id,))
        statement = (
            select(*_TOLD)
            .join(given, changes.c.order_id == given.c.order_id)
            .where(changes.c.handled.is_(None), changes.c.id > _BEGUN, wanted.clause())
            .order_by(changes.c.order_id, changes.c.version)
        )
        bound = self._session.bind((changes.c.order_id,), [(order_id,) for order_id in order_ids])
        rows = (await self._session.execute(statement, bound)).mappings()
        return [Change(**row) for row in rows]

    async def mark(self, seen: Sequence[Change], *, handled: bool | None) -> None:
        """Say of these changes of locked orders that their handlers ran, were given up, or (None) are to run again."""
        if not seen:
            return
        columns = (changes.c.order_id, changes.c.version)
        given = self._session.source(columns)
        statement = update(changes).values(handled=handled).where(*(col == given.c[col.name] for col in columns))
        bound = self._session.bind(columns, [(change.order_id, change.version) for change in seen])
        await self._session.execute(statement, bound)

    async def put_off(self, order_id: str, *, due_at_ms: int, attempts: int) -> None:
        """Take this order up again, or for the first time, at this time."""
        row = {"order_id": order_id, "due_at_ms": due_at_ms, "attempts": attempts}
        statement = self._session.insert(handler_backlog).values(row)
        await self._session.execute(
            statement.on_conflict_do_update(
                index_elements=[handler_backlog.c.order_id], set_={"due_at_ms": due_at_ms, "attempts": attempts}
            )
        )

    async def recall(self, delays_ms: Sequence[int], now_ms: int) -> int:
        """Make due at once what waits for longer than it was ever put off, as after a clock was set back; how many.

        ``delays_ms`` are by the number of failures, from none; the last serves all further ones.
        """
        table = handler_backlog.c
        delays = {failures: literal(delay_ms, BigInteger) for failures, delay_ms in enumerate(delays_ms)}
        put_off_ms = case(delays, value=table.attempts, else_=literal(delays_ms[-1], BigInteger))
        stray = (
            select(table.order_id)
            .where(table.due_at_ms > now_ms + CLOCK_SLACK_MS, table.due_at_ms - put_off_ms > now_ms + CLOCK_SLACK_MS)
            .limit(RECALLED_AT_ONCE)
            .with_for_update(skip_locked=True)
        )
        statement = update(handler_backlog).where(table.order_id.in_(stray)).values(due_at_ms=now_ms)
        return len((await self._session.execute(statement.returning(table.order_id))).all())

    async def forget(self, order_id: str) -> None:
        """Take this order out of the backlog."""
        await self._session.execute(delete(handler_backlog).where(handler_backlog.c.order_id == order_id))

    async def reopen(self, order_id: str, version: int, now_ms: int) -> bool:
        """Have a change that was given up handled once more; False where it is none of those."""
        columns = (changes.c.order_id == order_id, changes.c.version == version, changes.c.handled.is_(False))
        statement = update(changes).values(handled=None).where(*columns).returning(changes.c.id)
        if (await self._session.execute(statement)).first() is None:
            return False
        await self.put_off(order_id, due_at_ms=now_ms, attempts=0)
        return True
