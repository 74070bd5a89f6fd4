"""API keys: made and shown once, listed, revoked. What is stored of a key opens nothing."""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
from collections.abc import Callable
from typing import NamedTuple

import msgspec
import structlog

from oplata.errors import AccessError, DatabaseUnavailable, KeyNotFound, SchemaError, SettingsError
from oplata.orders.clock import wall_clock_ms
from oplata.orders.paging import MAX_LISTED, within
from oplata.orders.scopes import Scope
from oplata.storage.audit import Entry
from oplata.storage.engine import Database
from oplata.storage.keys import KeyRow

CHECK_TIMEOUT_S = 5.0
MAX_NAME_LENGTH = 100
_MAKE_ONE = (
    "Make one with `oplata keys create NAME --scope write`, after `oplata migrate`; or say --insecure if whoever "
    "reaches the port may do everything, or OPLATA_RPC=off if only callbacks are to be taken."
)
_log = structlog.get_logger("oplata.orders")
_ID_BYTES = 6
_SECRET_BYTES = 32
_KEY = re.compile(r"oplata_([0-9a-f]{12})_[0-9a-f]{64}", re.ASCII)


class KeyView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A key as its owner sees it. Times are milliseconds since the epoch; ``lastUsedAt`` is right to the minute."""

    id: str
    name: str
    scope: str
    created_at: int
    created_by: str
    expires_at: int | None
    last_used_at: int | None
    revoked_at: int | None
    revoked_by: str | None


class NewKey(NamedTuple):
    """The key itself, which is never shown again, and what is kept of it."""

    key: str
    view: KeyView


def id_of(key: str) -> str | None:
    """The part of a key that is no secret; None for a text that is no key."""
    found = _KEY.fullmatch(key)
    return None if found is None else found[1]


def digest_of(key: str) -> str:
    """What is stored of a key. It is random and long, so a plain digest tells nothing of it and needs no salt."""
    return hashlib.sha256(key.encode()).hexdigest()


class Keys:
    """The keys in this database. Every method raises the errors of storage."""

    def __init__(
        self,
        database: Database,
        *,
        now_ms: Callable[[], int] = wall_clock_ms,
        random_hex: Callable[[int], str] = secrets.token_hex,
    ) -> None:
        self._database = database
        self._now_ms = now_ms
        self._random_hex = random_hex

    async def create(self, name: str, scope: Scope, *, who: str, lifetime_ms: int | None = None) -> NewKey:
        """Make a key. Raises ``AccessError`` for a name that says nothing."""
        if not 1 <= len(name) <= MAX_NAME_LENGTH or not name.isprintable():
            raise AccessError(f"a key's name has 1 to {MAX_NAME_LENGTH} printable characters")
        at_ms, key_id = self._now_ms(), self._random_hex(_ID_BYTES)
        key = f"oplata_{key_id}_{self._random_hex(_SECRET_BYTES)}"
        row = KeyRow(
            id=key_id,
            name=name,
            digest=digest_of(key),
            scope=scope.value,
            created_at_ms=at_ms,
            created_by=who,
            expires_at_ms=None if lifetime_ms is None else at_ms + lifetime_ms,
        )
        async with self._database.unit_of_work() as uow:
            await uow.keys.add(row)
            await uow.audit.note([_entry(row.id, "key.created", who, name, at_ms, scope=scope.value)])
            await uow.commit()
        return NewKey(key, _view(row))

    async def list(self, *, limit: int = MAX_LISTED) -> list[KeyView]:
        """The newest keys, those that open nothing any more among them."""
        async with self._database.unit_of_work(read_only=True) as uow:
            return [_view(row) for row in await uow.keys.page(limit=within(limit))]

    async def revoke(self, key_id: str, *, who: str, why: str) -> KeyView:
        """Let a key open nothing from now on. Raises ``KeyNotFound``; one that is revoked already stays as it is."""
        at_ms = self._now_ms()
        async with self._database.unit_of_work() as uow:
            if await uow.keys.revoke(key_id, by=who, at_ms=at_ms):
                await uow.audit.note([_entry(key_id, "key.revoked", who, why, at_ms)])
            row = await uow.keys.get(key_id)
            if row is None:
                raise KeyNotFound(f"there is no key {key_id}: `oplata keys list` has their ids")
            await uow.commit()
        return _view(row)

    async def require_one(self, path: str) -> None:
        """Raise ``SettingsError`` where no key opens anything.

        A database that is away says nothing of its keys. Then the door stays shut, and callbacks are taken.
        """
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_S):
                if await self.any_good():
                    return
        except (TimeoutError, DatabaseUnavailable) as error:
            _log.warning("The database is away; orders cannot be served yet.", action="door.start", reason=str(error))
            return
        except SchemaError as error:
            raise SettingsError(f"No API key can be looked up: {error}. {_MAKE_ONE}") from None
        raise SettingsError(f"There is no API key that opens {path}. {_MAKE_ONE}")

    async def any_good(self) -> bool:
        """Whether there is a key that opens anything."""
        async with self._database.unit_of_work(read_only=True) as uow:
            return await uow.keys.any_good(self._now_ms())


def _entry(key_id: str, action: str, who: str, why: str, at_ms: int, **details: object) -> Entry:
    return Entry(at_ms=at_ms, actor=who, action=action, subject=f"key:{key_id}", reason=why, details=details)


def _view(row: KeyRow) -> KeyView:
    return KeyView(
        id=row.id,
        name=row.name,
        scope=row.scope,
        created_at=row.created_at_ms,
        created_by=row.created_by,
        expires_at=row.expires_at_ms,
        last_used_at=row.last_used_at_ms,
        revoked_at=row.revoked_at_ms,
        revoked_by=row.revoked_by,
    )
