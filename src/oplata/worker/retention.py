"""Takes bodies out of the archive that have become old. Everything that was concluded from them stays.

What a callback's body said lies in its event, and the event's digest is what a repeat is known by: so a repeat that
comes after a year is still a repeat. Dead letters are none of this: nobody has dealt with them yet.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from oplata.storage.archive import Prunable
from oplata.storage.audit import Entry
from oplata.storage.engine import Database

SUBJECT = "retention:bodies"
BATCH_SIZE = 1000
DAY_MS = 86_400_000


class Pruned(msgspec.Struct, rename="camel"):
    """What a run came to. ``kept`` were old and stayed: a worker had their row, or their event is not recorded."""

    looked_at: int = 0
    pruned: int = 0
    pruned_bytes: int = 0
    kept: int = 0


class Retention:
    """Prunes what was first seen before a time. A run may be cut short anywhere, and the next one goes on."""

    def __init__(
        self,
        database: Database,
        *,
        progress: Callable[[Pruned], None] = lambda _: None,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        batch_size: int = BATCH_SIZE,
    ) -> None:
        self._database = database
        self._progress = progress
        self._now_ms = now_ms
        self._batch_size = batch_size
        self._kept_since_ms: int | None = None
        self.totals = Pruned()

    async def run(self, days: int, *, who: str, everything: bool = False, dry_run: bool = False) -> Pruned:
        """Prune bodies older than this. It begins where the last run found nothing more to do, or at the beginning.

        Each batch is a transaction of its own, and rows that somebody holds are left to the next run. The audit keeps
        who did it. Raises the errors of storage.
        """
        self.totals, self._kept_since_ms = Pruned(), None
        before_ms = self._now_ms() - days * DAY_MS
        place = (0 if everything else await self._begin_ms(), "")
        if not dry_run:
            await self._note(who, "retention_begins", before_ms, {"days": days})
        while True:
            page = await self._batch(place, before_ms, dry_run=dry_run)
            if not page:
                break
            place = page[-1].first_seen_at_ms, page[-1].digest
            self._progress(self.totals)
        if not dry_run:
            done = {"next_from_ms": before_ms if self._kept_since_ms is None else self._kept_since_ms}
            await self._note(who, "retention", before_ms, {"days": days, **done, **msgspec.structs.asdict(self.totals)})
        return self.totals

    async def _batch(self, after: tuple[int, str], before_ms: int, *, dry_run: bool) -> list[Prunable]:
        async with self._database.unit_of_work(read_only=dry_run) as uow:
            page = await uow.archive.prunable(after, before_ms=before_ms, limit=self._batch_size)
            whole = sorted(each.digest for each in page if not each.pruned)
            if dry_run:
                gone = await uow.events.known(whole)
            else:
                gone = await uow.archive.prune(whole, self._now_ms())
                await uow.commit()
        self.totals.looked_at += len(page)
        for each in page:
            if each.digest in gone:
                self.totals.pruned += 1
                self.totals.pruned_bytes += each.body_bytes
            elif not each.pruned:
                self.totals.kept += 1
                if self._kept_since_ms is None:
                    self._kept_since_ms = each.first_seen_at_ms
        return page

    async def _begin_ms(self) -> int:
        async with self._database.unit_of_work(read_only=True) as uow:
            newest = await uow.audit.newest(subject=SUBJECT, limit=20)
        found = (each.details["next_from_ms"] for each in newest if "next_from_ms" in each.details)
        return int(str(next(found, 0)))

    async def _note(self, who: str, action: str, before_ms: int, details: dict[str, object]) -> None:
        entry = Entry(
            at_ms=self._now_ms(),
            actor=who,
            action=action,
            subject=SUBJECT,
            reason="the policy on the age of bodies",
            details={"before_ms": before_ms, **details},
        )
        async with self._database.unit_of_work() as uow:
            await uow.audit.note([entry])
            await uow.commit()
