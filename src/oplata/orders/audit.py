"""Who did what to which thing, when and why."""

from __future__ import annotations

from typing import Any

import msgspec

from oplata.orders.paging import Page, page_of, place_of, within
from oplata.storage.audit import Noted
from oplata.storage.engine import Database


class AuditLine(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One act; ``subject`` is such as order:7, dead_letter:12 or key:3f. ``reason`` is in the actor's words."""

    id: int
    at: int
    actor: str
    action: str
    subject: str
    reason: str
    details: dict[str, Any]


class AuditTrail:
    """The audit of this database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(
        self,
        *,
        subject: str | None = None,
        actor: str | None = None,
        action: str | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> Page[AuditLine]:
        """The latest of these acts. Raises ``OrderError`` for a wrong cursor."""
        place = place_of(cursor, tuple[int])
        async with self._database.unit_of_work(read_only=True) as uow:
            found = await uow.audit.search(
                subject=subject, actor=actor, action=action, limit=within(limit), before=place
            )
        return page_of([_line(each) for each in found.rows], found.behind)


def _line(noted: Noted) -> AuditLine:
    return AuditLine(
        id=noted.id,
        at=noted.at_ms,
        actor=noted.actor,
        action=noted.action,
        subject=noted.subject,
        reason=noted.reason,
        details=dict(noted.details),
    )
