"""The archive: the bytes of every verified callback, as they first arrived."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from sqlalchemy import Executable, exists, func, select, tuple_, update
from sqlalchemy.sql.elements import ColumnElement

from oplata.storage.pages import Found, newest
from oplata.storage.session import Session, built_once
from oplata.storage.tables import callbacks, events

_COLUMNS = (
    callbacks.c.digest,
    callbacks.c.body,
    callbacks.c.content_type,
    callbacks.c.source,
    callbacks.c.first_seen_at_ms,
    callbacks.c.last_seen_at_ms,
    callbacks.c.times_seen,
)
_READ = (*_COLUMNS, callbacks.c.pruned_at_ms)
_PLACE = (callbacks.c.first_seen_at_ms, callbacks.c.digest)


class ArchivedCallback(msgspec.Struct, frozen=True, kw_only=True):
    """One distinct callback; ``source`` is the network address it first came from, where that is known.

    A callback that was pruned has no bytes any more; what they said is its event.
    """

    digest: str
    body: bytes
    content_type: str
    source: str | None
    first_seen_at_ms: int
    last_seen_at_ms: int
    times_seen: int
    pruned_at_ms: int | None = None


class Prunable(msgspec.Struct, frozen=True, kw_only=True):
    """What a policy has to know of a callback."""

    digest: str
    first_seen_at_ms: int
    body_bytes: int
    pruned: bool


class Archive:
    """Reads and writes ``callbacks``."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def keep(self, seen: Sequence[ArchivedCallback]) -> None:
        """Store what is new and count what is not. Each digest stands once in ``seen``, in ascending order."""
        await self._session.execute(self._keeping(), self._session.bind(_COLUMNS, map(_row, seen)))

    @built_once
    def _keeping(self) -> Executable:
        given = self._session.source(_COLUMNS)
        statement = self._session.insert(callbacks).from_select(list(given.c.keys()), self._session.every(given))
        return statement.on_conflict_do_update(
            index_elements=[callbacks.c.digest],
            set_={
                "times_seen": callbacks.c.times_seen + statement.excluded.times_seen,
                # Clocks differ between endpoints and jump; the later reading is the better guess.
                "last_seen_at_ms": self._session.greatest(
                    callbacks.c.last_seen_at_ms, statement.excluded.last_seen_at_ms
                ),
            },
        )

    async def get(self, digest: str) -> ArchivedCallback | None:
        """The callback of this event, or None."""
        rows = await self._session.execute(select(*_READ).where(callbacks.c.digest == digest))
        return next((ArchivedCallback(**row) for row in rows.mappings()), None)

    async def search(
        self,
        *,
        order_id: str | None,
        source: str | None,
        since_ms: int | None,
        until_ms: int | None,
        limit: int,
        before: tuple[int, str] | None,
    ) -> Found[ArchivedCallback]:
        """Those first seen last, newest first; ``before`` is the place of the last one of the page before."""
        along: list[ColumnElement[bool]] = []
        if order_id is not None:
            # EXISTS would have SQLite walk through the whole archive.
            along.append(callbacks.c.digest.in_(select(events.c.digest).where(events.c.order_id == order_id)))
        if since_ms is not None:
            along.append(callbacks.c.first_seen_at_ms >= since_ms)
        if until_ms is not None:
            along.append(callbacks.c.first_seen_at_ms < until_ms)
        found = await newest(
            self._session,
            _READ,
            _PLACE,
            along=along,
            besides=() if source is None else (callbacks.c.source == source,),
            before=before,
            limit=limit,
        )
        return found.each(lambda row: ArchivedCallback(**row))

    async def page(
        self, after: tuple[int, str] | None, *, from_ms: int | None, to_ms: int | None, limit: int
    ) -> list[ArchivedCallback]:
        """The next callbacks by the time they were first seen, of those first seen from one time up to another.

        ``after`` is the time and the digest of the last one of the page before.
        """
        statement = select(*_READ).order_by(*_PLACE).limit(limit)
        if after is not None:
            statement = statement.where(tuple_(*_PLACE) > after)
        if from_ms is not None:
            statement = statement.where(callbacks.c.first_seen_at_ms >= from_ms)
        if to_ms is not None:
            statement = statement.where(callbacks.c.first_seen_at_ms < to_ms)
        return [ArchivedCallback(**row) for row in (await self._session.execute(statement)).mappings()]

    async def prunable(self, after: tuple[int, str], *, before_ms: int, limit: int) -> list[Prunable]:
        """The next callbacks that were first seen before a time, in the order of ``page``, pruned ones among them."""
        statement = (
            select(
                callbacks.c.digest,
                callbacks.c.first_seen_at_ms,
                func.length(callbacks.c.body).label("body_bytes"),
                callbacks.c.pruned_at_ms.is_not(None).label("pruned"),
            )
            .where(tuple_(*_PLACE) > after, callbacks.c.first_seen_at_ms < before_ms)
            .order_by(*_PLACE)
            .limit(limit)
        )
        return [Prunable(**row) for row in (await self._session.execute(statement)).mappings()]

    async def prune(self, digests: Sequence[str], at_ms: int) -> frozenset[str]:
        """Take the bodies of these away, and return whose are gone.

        One that a worker holds at this moment is passed over, and so is one whose event is not recorded: its body is
        all there is of it.
        """
        digest = (callbacks.c.digest,)
        given = self._session.source(digest)
        recorded = exists().where(events.c.digest == callbacks.c.digest)
        free = (
            select(callbacks.c.digest)
            .join(given, callbacks.c.digest == given.c.digest)
            .where(callbacks.c.pruned_at_ms.is_(None), recorded)
            .order_by(callbacks.c.digest)
            .with_for_update(skip_locked=True, of=callbacks)
        )
        bound = self._session.bind(digest, [(each,) for each in digests])
        held = sorted((await self._session.execute(free, bound)).scalars())
        statement = (
            update(callbacks).values(body=b"", pruned_at_ms=at_ms).where(callbacks.c.digest == given.c.digest)
        ).returning(callbacks.c.digest)
        bound = self._session.bind(digest, [(each,) for each in held])
        return frozenset((await self._session.execute(statement, bound)).scalars())

    async def count(self) -> int:
        """How many distinct callbacks are kept. Reads the whole table: for checks and tests."""
        return int((await self._session.execute(select(func.count()).select_from(callbacks))).scalar_one())


def _row(seen: ArchivedCallback) -> tuple[object, ...]:
    """The values of ``_COLUMNS``; what is kept anew was never pruned."""
    return msgspec.structs.astuple(seen)[: len(_COLUMNS)]
