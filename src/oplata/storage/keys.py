"""API keys: the digest of each, its scope, and when it was last used. The keys themselves are kept nowhere."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from sqlalchemy import exists, insert, or_, select, update

from oplata.storage.session import Session
from oplata.storage.tables import api_keys

_COLUMNS = tuple(api_keys.c)


class KeyRow(msgspec.Struct, frozen=True, kw_only=True):
    """A key as it is stored. ``digest`` is SHA-256 of the whole key in hex; ``expires_at_ms`` of None is never."""

    id: str
    name: str
    digest: str
    scope: str
    created_at_ms: int
    created_by: str
    expires_at_ms: int | None = None
    last_used_at_ms: int | None = None
    revoked_at_ms: int | None = None
    revoked_by: str | None = None

    def is_good(self, now_ms: int) -> bool:
        """Whether it opens anything at this time."""
        return self.revoked_at_ms is None and (self.expires_at_ms is None or now_ms < self.expires_at_ms)


class Keys:
    """Reads and writes ``api_keys``."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def add(self, key: KeyRow) -> None:
        """Keep a new key."""
        await self._session.execute(insert(api_keys), msgspec.structs.asdict(key))

    async def get(self, key_id: str) -> KeyRow | None:
        """The key of this id, good or not; or None."""
        rows = await self._session.execute(select(*_COLUMNS).where(api_keys.c.id == key_id))
        return next((KeyRow(**row) for row in rows.mappings()), None)

    async def page(self, *, limit: int) -> list[KeyRow]:
        """The newest keys, revoked ones among them."""
        statement = select(*_COLUMNS).order_by(api_keys.c.created_at_ms.desc(), api_keys.c.id).limit(limit)
        return [KeyRow(**row) for row in (await self._session.execute(statement)).mappings()]

    async def any_good(self, now_ms: int) -> bool:
        """Whether some key opens anything at this time."""
        good = exists().where(
            api_keys.c.revoked_at_ms.is_(None),
            or_(api_keys.c.expires_at_ms.is_(None), api_keys.c.expires_at_ms > now_ms),
        )
        return bool((await self._session.execute(select(good))).scalar_one())

    async def revoke(self, key_id: str, *, by: str, at_ms: int) -> bool:
        """Revoke a key that is not revoked; says whether there was one."""
        statement = (
            update(api_keys)
            .where(api_keys.c.id == key_id, api_keys.c.revoked_at_ms.is_(None))
            .values(revoked_at_ms=at_ms, revoked_by=by)
            .returning(api_keys.c.id)
        )
        return (await self._session.execute(statement)).first() is not None

    async def used(self, times: Mapping[str, int]) -> None:
        """Note when each of these keys was last used. They are few, and written once a minute."""
        for key_id, at_ms in sorted(times.items()):
            await self._session.execute(
                update(api_keys)
                .where(
                    api_keys.c.id == key_id,
                    or_(api_keys.c.last_used_at_ms.is_(None), api_keys.c.last_used_at_ms < at_ms),
                )
                .values(last_used_at_ms=at_ms)
            )
