"""The deliveries: what each sink has been told, is to be told, and could not be told."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum

import msgspec
from sqlalchemy import BigInteger, case, delete, exists, func, literal, not_, select, union_all, update
from sqlalchemy.sql.elements import ColumnElement

from oplata.storage.changes import Change
from oplata.storage.session import Session
from oplata.storage.sinks import CLOCK_SLACK_MS
from oplata.storage.tables import changes, deliveries

RECALLED_AT_ONCE = 10_000
PRUNED_AT_ONCE = 2_000
"""Of each of the states that need nobody any more."""


_QUEUED = (
    deliveries.c.sink,
    deliveries.c.change_id,
    deliveries.c.order_id,
    deliveries.c.state,
    deliveries.c.due_at_ms,
    deliveries.c.queued_at_ms,
)
_SETTLED = (
    deliveries.c.change_id,
    deliveries.c.round,
    deliveries.c.state,
    deliveries.c.attempts,
    deliveries.c.due_at_ms,
    deliveries.c.settled_at_ms,
    deliveries.c.last_error,
)
_CHANGE = tuple(changes.c[name] for name in Change.__struct_fields__)
_CHANGE_NAMES = [col.name for col in _CHANGE]


class State(StrEnum):
    """What became of a delivery."""

    WAITING = "waiting"
    TOLD = "told"
    SKIPPED = "skipped"
    DEAD = "dead"


class Due(msgspec.Struct, frozen=True, kw_only=True):
    """A delivery that is to be made now."""

    change_id: int
    change: Change
    attempts: int
    round: int
    traceparent: str | None = None


class Settled(msgspec.Struct, frozen=True, kw_only=True):
    """What became of an attempt. One that is to be made again is ``waiting`` until ``due_at_ms``."""

    change_id: int
    round: int
    state: State
    attempts: int
    due_at_ms: int
    settled_at_ms: int | None
    last_error: str | None


class DeliveryRow(msgspec.Struct, frozen=True, kw_only=True):
    """A delivery as it is stored."""

    sink: str
    change_id: int
    order_id: str
    state: str
    round: int
    attempts: int
    due_at_ms: int
    queued_at_ms: int
    settled_at_ms: int | None
    last_error: str | None


class Deliveries:
    """Reads and writes ``deliveries``."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def queue(self, sink: str, told: Iterable[tuple[int, Change]], at_ms: int) -> None:
        """Have these changes told to the sink. One that was queued already stays as it is."""
        rows = [(sink, each, change.order_id, State.WAITING.value, at_ms, at_ms) for each, change in told]
        if not rows:
            return
        given = self._session.source(_QUEUED)
        statement = (
            self._session.insert(deliveries)
            .from_select(list(given.c.keys()), self._session.every(given))
            .on_conflict_do_nothing(index_elements=[deliveries.c.sink, deliveries.c.change_id])
        )
        await self._session.execute(statement, self._session.bind(_QUEUED, rows))

    async def due(self, sink: str, now_ms: int, *, without: Sequence[str], limit: int) -> list[Due]:
        """What may be told now, in the order of the changes, but for these orders.

        A delivery is not due while an earlier one of its order waits for its time.
        """
        d, earlier = deliveries.alias("d"), deliveries.alias("earlier")
        busy = self._session.source((deliveries.c.order_id,))
        held_up = exists().where(
            earlier.c.sink == d.c.sink,
            earlier.c.order_id == d.c.order_id,
            earlier.c.state == State.WAITING.value,
            earlier.c.change_id < d.c.change_id,
            earlier.c.due_at_ms > now_ms,
        )
        statement = (
            select(d.c.change_id, d.c.attempts, d.c.round, changes.c.traceparent, *_CHANGE)
            .join(changes, changes.c.id == d.c.change_id)
            .where(
                d.c.sink == sink,
                d.c.state == State.WAITING.value,
                d.c.due_at_ms <= now_ms,
                not_(held_up),
                d.c.order_id.not_in(select(busy.c.order_id)),
            )
            .order_by(d.c.change_id)
            .limit(limit)
        )
        bound = self._session.bind((deliveries.c.order_id,), [(order_id,) for order_id in without])
        rows = (await self._session.execute(statement, bound)).mappings()
        return [
            Due(
                change_id=row["change_id"],
                attempts=row["attempts"],
                round=row["round"],
                traceparent=row["traceparent"],
                change=Change(**{name: row[name] for name in _CHANGE_NAMES}),
            )
            for row in rows
        ]

    async def settle(self, sink: str, settled: Sequence[Settled]) -> None:
        """Note what became of these attempts. What was told to be replayed meanwhile stays as it is."""
        if not settled:
            return
        given = self._session.source(_SETTLED)
        statement = (
            update(deliveries)
            .values({col.name: given.c[col.name] for col in _SETTLED[2:]})
            .where(
                deliveries.c.sink == sink,
                deliveries.c.change_id == given.c.change_id,
                deliveries.c.round == given.c.round,
                deliveries.c.state == State.WAITING.value,
            )
        )
        rows = sorted(msgspec.structs.astuple(each) for each in settled)
        await self._session.execute(statement, self._session.bind(_SETTLED, rows))

    async def replay(self, sink: str, at_ms: int, *, up_to: int, which: ColumnElement[bool]) -> int:
        """Have these changes told again, up to the sink's cursor; returns how many."""
        source = select(
            literal(sink),
            changes.c.id,
            changes.c.order_id,
            literal(State.WAITING.value),
            literal(at_ms),
            literal(at_ms),
        ).where(changes.c.id <= up_to, which)
        statement = self._session.insert(deliveries).from_select([col.name for col in _QUEUED], source)
        again = statement.on_conflict_do_update(
            index_elements=[deliveries.c.sink, deliveries.c.change_id],
            set_={
                "state": State.WAITING.value,
                "round": deliveries.c.round + 1,
                "attempts": 0,
                "due_at_ms": at_ms,
                "settled_at_ms": None,
            },
        ).returning(deliveries.c.change_id)
        return len((await self._session.execute(again)).all())

    async def recall(self, sink: str, now_ms: int, *, longest_ms: int) -> int:
        """Make due at once what waits for longer than it was ever put off, as after a clock was set back; how many.

        ``longest_ms`` is the most that one which failed is put off. One that never failed was due when it was queued.
        """
        latest_ms = now_ms + CLOCK_SLACK_MS
        put_off_ms = case(
            (deliveries.c.last_error.is_(None), literal(0, BigInteger)), else_=literal(longest_ms, BigInteger)
        )
        stray = (
            select(deliveries.c.change_id)
            .where(
                deliveries.c.sink == sink,
                deliveries.c.state == State.WAITING.value,
                deliveries.c.due_at_ms > latest_ms,
                deliveries.c.due_at_ms - put_off_ms > latest_ms,
            )
            .limit(RECALLED_AT_ONCE)
        )
        statement = (
            update(deliveries)
            .where(deliveries.c.sink == sink, deliveries.c.change_id.in_(stray))
            .values(due_at_ms=now_ms)
            .returning(deliveries.c.change_id)
        )
        return len((await self._session.execute(statement)).all())

    async def prune(self, sink: str, before_ms: int) -> int:
        """Take away what was told or skipped before this time, the oldest changes first; returns how many.

        It looks at so many of the oldest and no further. What was told again lately stays, and may keep what follows it
        for as long as itself.
        """
        oldest = [
            select(deliveries.c.change_id, deliveries.c.settled_at_ms)
            .where(deliveries.c.sink == sink, deliveries.c.state == state.value)
            .order_by(deliveries.c.change_id)
            .limit(PRUNED_AT_ONCE)
            .subquery()
            for state in (State.TOLD, State.SKIPPED)
        ]
        old = union_all(*(select(each.c.change_id).where(each.c.settled_at_ms < before_ms) for each in oldest))
        statement = delete(deliveries).where(deliveries.c.sink == sink, deliveries.c.change_id.in_(old))
        return len((await self._session.execute(statement.returning(deliveries.c.change_id))).all())

    async def counts(self, sink: str) -> dict[str, int]:
        """How many are in the states that need somebody or something: waiting and dead."""
        statement = (
            select(deliveries.c.state, func.count().label("number"))
            .where(deliveries.c.sink == sink, deliveries.c.state.in_([State.WAITING.value, State.DEAD.value]))
            .group_by(deliveries.c.state)
        )
        return {row["state"]: row["number"] for row in (await self._session.execute(statement)).mappings()}

    async def waiting(self, sink: str, *, limit: int) -> int:
        """How many wait, counted up to a limit."""
        some = (
            select(deliveries.c.change_id)
            .where(deliveries.c.sink == sink, deliveries.c.state == State.WAITING.value)
            .limit(limit)
            .subquery()
        )
        return int((await self._session.execute(select(func.count()).select_from(some))).scalar_one())

    async def search(
        self, *, sink: str | None, state: str | None, order_id: str | None, limit: int
    ) -> list[DeliveryRow]:
        """The latest deliveries, newest change first."""
        given = ((deliveries.c.sink, sink), (deliveries.c.state, state), (deliveries.c.order_id, order_id))
        wanted = [column == value for column, value in given if value is not None]
        statement = select(*deliveries.c).where(*wanted).order_by(deliveries.c.change_id.desc(), deliveries.c.sink)
        return [DeliveryRow(**row) for row in (await self._session.execute(statement.limit(limit))).mappings()]


def since(change_id: int) -> ColumnElement[bool]:
    """The changes from this one on."""
    return changes.c.id >= change_id


def of_order(order_id: str) -> ColumnElement[bool]:
    """All changes of an order."""
    return changes.c.order_id == order_id


def dead_and_later(sink: str) -> ColumnElement[bool]:
    """What is dead, and all that followed it in its order: told again together, they end as the order is now."""
    dead = deliveries.alias("dead")
    return exists().where(
        dead.c.sink == sink,
        dead.c.state == State.DEAD.value,
        dead.c.order_id == changes.c.order_id,
        dead.c.change_id <= changes.c.id,
    )
