"""What the archive holds, page by page, as the facts that its bodies tell."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence

import msgspec

from oplata.bank.notification import parse
from oplata.domain.events import Event
from oplata.errors import BadNotification
from oplata.storage.archive import ArchivedCallback
from oplata.storage.engine import Database
from oplata.worker.difference import Difference, forgotten, unreadable


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """Which callbacks: first seen from one time up to another, of one terminal, of one order. None is any."""

    from_ms: int | None = None
    to_ms: int | None = None
    terminal_key: str | None = None
    order_id: str | None = None

    def holds(self, event: Event) -> bool:
        """Whether this event is of the terminal and the order."""
        return self.terminal_key in (None, event.terminal_key) and self.order_id in (None, event.order_id)


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """Some callbacks: their facts in ascending order of the digests, and the digests of those that cannot be read.

    ``remembered`` are the facts of those whose bodies were pruned, as they are recorded: there is nothing to hold them
    against. ``forgotten`` were pruned and are recorded nowhere.
    """

    events: Sequence[Event]
    unreadable: Sequence[str]
    remembered: Sequence[Event] = ()
    forgotten: Sequence[str] = ()


def read_archived(callback: ArchivedCallback) -> Event | None:
    """The fact in an archived body; None if the bytes do not hold the fact they are kept under.

    The token is not asked: it was right when the callback came, and passwords change.
    """
    try:
        event = parse(callback.body, callback.content_type).event()
    except BadNotification:
        return None
    return event if event.digest == callback.digest else None


async def walk(database: Database, span: Span, *, page_size: int) -> AsyncIterator[Page]:
    """The callbacks of a span by the time they were first seen; each page is read in a transaction of its own."""
    after: tuple[int, str] | None = None
    while True:
        async with database.unit_of_work(read_only=True) as uow:
            callbacks = await uow.archive.page(after, from_ms=span.from_ms, to_ms=span.to_ms, limit=page_size)
            pruned = sorted(callback.digest for callback in callbacks if callback.pruned_at_ms is not None)
            recorded = await uow.events.get(pruned) if pruned else {}
        if not callbacks:
            return
        after = callbacks[-1].first_seen_at_ms, callbacks[-1].digest
        told = {each.digest: read_archived(each) for each in callbacks if each.pruned_at_ms is None}
        yield Page(
            events=[event for _, event in sorted(told.items()) if event is not None and span.holds(event)],
            unreadable=sorted(digest for digest, event in told.items() if event is None),
            remembered=[recorded[digest] for digest in pruned if digest in recorded and span.holds(recorded[digest])],
            forgotten=[digest for digest in pruned if digest not in recorded],
        )


def each_lost(page: Page) -> Iterator[Difference]:
    """What nothing can be built from."""
    yield from map(unreadable, page.unreadable)
    yield from map(forgotten, page.forgotten)
