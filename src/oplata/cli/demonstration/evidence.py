"""What the database says: read by itself, as a shop would, and not asked from the parts that wrote it."""

from __future__ import annotations

from collections.abc import Collection

from oplata.app import Oplata
from oplata.cli.demonstration.tally import Found
from oplata.storage.changes import Change
from oplata.storage.engine import Database

CHANGES_AT_ONCE = 500
DIGESTS_AT_ONCE = 500
ORDERS_AT_ONCE = 1000


class ChangeReader:
    """Reads the change log onward from where it stopped."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._last_id = 0

    async def read(self) -> list[Change]:
        """The changes since the last call, oldest first."""
        told: list[Change] = []
        async with self._database.unit_of_work(read_only=True) as uow:
            while page := await uow.changes.after(self._last_id, limit=CHANGES_AT_ONCE):
                self._last_id = page[-1][0]
                told.extend(change for _, change in page)
        return told


async def read_back(app: Oplata, digests: Collection[str]) -> Found:
    """Which of these facts are recorded, how every order ended, and whether anything lies in the dead letters."""
    wanted, known = sorted(digests), set[str]()
    async with app.database.unit_of_work(read_only=True) as uow:
        for start in range(0, len(wanted), DIGESTS_AT_ONCE):
            known |= await uow.events.known(wanted[start : start + DIGESTS_AT_ONCE])
    orders: dict[str, tuple[str, bool]] = {}
    last: str | None = None
    while page := await app.orders.list(limit=ORDERS_AT_ONCE, after=last):
        orders |= {view.order_id: (view.status, view.review is not None) for view in page}
        last = page[-1].order_id
    return Found(known, orders, (await app.queue.depth()).dead + app.worker.stats.buried)
