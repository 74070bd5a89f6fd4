"""Changes for tests that need no bank to make them."""

from __future__ import annotations

from collections.abc import Sequence

from oplata.storage.changes import Change
from oplata.storage.engine import Database

AT_MS = 1_760_000_000_000


def change(order_id: str = "order-1", version: int = 1, status: str = "paid", *, at_ms: int = AT_MS) -> Change:
    """A change as the log holds it."""
    return Change(
        order_id=order_id,
        version=version,
        status=status,
        previous_status=None if version == 1 else "pending",
        amount_kopecks=19_900,
        review=None,
        changed_at_ms=at_ms,
    )


async def append(database: Database, *told: Change) -> None:
    """Commit these changes at the end of the log, as a worker does once it has judged the orders."""
    async with database.unit_of_work() as uow:
        await uow.changes.append(told)
        await uow.commit()


def versions(order_id: str, first: int, last: int) -> Sequence[Change]:
    """One order's changes from one version to another."""
    return [change(order_id, version) for version in range(first, last + 1)]
