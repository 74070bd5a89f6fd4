"""The sinks: how far each has been told of changes, and which process tells it now."""

from __future__ import annotations

import msgspec
from sqlalchemy import Update, case, or_, select, update

from oplata.errors import LeaseLost
from oplata.storage.session import Session
from oplata.storage.tables import sinks

CLOCK_SLACK_MS = 60_000

_COLUMNS = tuple(sinks.c)


class SinkRow(msgspec.Struct, frozen=True, kw_only=True):
    """A sink as it is stored. Every change up to ``cursor_id`` has its row in ``deliveries``, or needs none."""

    name: str
    cursor_id: int
    paused: bool
    holder: str | None
    lease_until_ms: int
    told: int
    last_told_at_ms: int | None
    failing_since_ms: int | None
    last_error: str | None
    created_at_ms: int


class Sinks:
    """Reads and writes ``sinks``."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def add(self, name: str, cursor_id: int, at_ms: int) -> None:
        """Make the row of a sink that has none yet."""
        statement = self._session.insert(sinks).on_conflict_do_nothing(index_elements=[sinks.c.name])
        await self._session.execute(statement, {"name": name, "cursor_id": cursor_id, "created_at_ms": at_ms})

    async def get(self, name: str) -> SinkRow | None:
        """The sink's row, or None."""
        rows = await self._session.execute(select(*_COLUMNS).where(sinks.c.name == name))
        return next((SinkRow(**row) for row in rows.mappings()), None)

    async def lock(self, name: str) -> SinkRow | None:
        """The sink's row, locked until the end of the transaction; or None.

        What writes deliveries of the sink and does not hold it begins with this: one that holds it writes them in an
        order of its own.
        """
        rows = await self._session.execute(select(*_COLUMNS).where(sinks.c.name == name).with_for_update())
        return next((SinkRow(**row) for row in rows.mappings()), None)

    async def every(self, *, limit: int) -> list[SinkRow]:
        """The sinks by name."""
        rows = await self._session.execute(select(*_COLUMNS).order_by(sinks.c.name).limit(limit))
        return [SinkRow(**row) for row in rows.mappings()]

    async def acquire(self, name: str, holder: str, *, ttl_ms: int) -> SinkRow | None:
        """Become the one who tells this sink, if nobody is, and it is not paused.

        A lease that is far longer than one can be was taken before the database's clock was set back.
        """
        clock = self._session.clock_ms()
        over = or_(sinks.c.lease_until_ms < clock, sinks.c.lease_until_ms > clock + ttl_ms + CLOCK_SLACK_MS)
        free = or_(sinks.c.holder.is_(None), sinks.c.holder == holder, over)
        return await self._changed(
            update(sinks)
            .where(sinks.c.name == name, sinks.c.paused.is_(False), free)
            .values(holder=holder, lease_until_ms=clock + ttl_ms)
        )

    async def hold(
        self, name: str, holder: str, *, ttl_ms: int, cursor_id: int | None = None, told: int = 0
    ) -> SinkRow:
        """Stay the one who tells it, note how far it is, and lock its row. Raises ``LeaseLost``.

        Every transaction that writes for the sink begins with this: whoever has lost the sink writes nothing more.
        """
        clock = self._session.clock_ms()
        row = await self._changed(
            update(sinks)
            .where(sinks.c.name == name, sinks.c.holder == holder)
            .values(
                lease_until_ms=clock + ttl_ms,
                cursor_id=sinks.c.cursor_id if cursor_id is None else cursor_id,
                told=sinks.c.told + told,
                last_told_at_ms=clock if told else sinks.c.last_told_at_ms,
            )
        )
        if row is None:
            raise LeaseLost(f"the sink {name} is told by another process now")
        return row

    async def note_health(self, name: str, error: str | None, at_ms: int) -> None:
        """Note why the sink takes nothing, and since when; or with None that it does."""
        since = case((sinks.c.failing_since_ms.is_(None), at_ms), else_=sinks.c.failing_since_ms)
        await self._session.execute(
            update(sinks)
            .where(sinks.c.name == name)
            .values(failing_since_ms=None if error is None else since, last_error=error)
        )

    async def release(self, name: str, holder: str) -> None:
        """Let another process tell it."""
        await self._session.execute(
            update(sinks).where(sinks.c.name == name, sinks.c.holder == holder).values(holder=None, lease_until_ms=0)
        )

    async def pause(self, name: str, *, paused: bool) -> bool:
        """Have it told nothing, or have it told again; says whether there is such a sink."""
        return await self._changed(update(sinks).where(sinks.c.name == name).values(paused=paused)) is not None

    async def _changed(self, statement: Update) -> SinkRow | None:
        row = (await self._session.execute(statement.returning(*_COLUMNS))).mappings().first()
        return None if row is None else SinkRow(**row)
