"""One transaction over all tables: what is not committed by name is rolled back."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

from sqlalchemy import select, text

from oplata.storage.archive import Archive
from oplata.storage.audit import Audit
from oplata.storage.canaries import Canaries
from oplata.storage.changes import ChangeLog
from oplata.storage.dead_letters import DeadLetters
from oplata.storage.deliveries import Deliveries
from oplata.storage.events import EventStore
from oplata.storage.grounds import Grounds
from oplata.storage.handling import Handling
from oplata.storage.intake import Intake
from oplata.storage.keys import Keys
from oplata.storage.orders import Orders
from oplata.storage.payments import Payments
from oplata.storage.projection import Projection
from oplata.storage.rollups import Rollups
from oplata.storage.session import Session
from oplata.storage.sinks import Sinks
from oplata.storage.telling import Telling
from oplata.storage.transaction import Transaction, lent
from oplata.storage.words import Words


class UnitOfWork:
    """The tables as one transaction sees them. Made by ``Database.unit_of_work()``."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.archive = Archive(session)
        self.events = EventStore(session)
        self.payments = Payments(session)
        self.orders = Orders(session)
        self.changes = ChangeLog(session)
        self.dead_letters = DeadLetters(session)
        self.projection = Projection(session)
        self.audit = Audit(session)
        self.canaries = Canaries(session)
        self.sinks = Sinks(session)
        self.deliveries = Deliveries(session)
        self.words = Words(session)
        self.keys = Keys(session)
        self.rollups = Rollups(session)
        self.handling = Handling(session)
        self.intake = Intake(session, self.archive, self.events, self.payments)
        self.grounds = Grounds(session, self.payments, self.words)
        self.telling = Telling(session, self.payments, self.orders, self.changes)

    def lend(self) -> AbstractAsyncContextManager[Transaction]:
        """This transaction for a handler of the shop. Raises what a statement of the handler's failed with."""
        return lent(self._session)

    async def clock_ms(self) -> int:
        """The database's own clock."""
        return int((await self._session.execute(select(self._session.clock_ms()))).scalar_one())

    async def touch(self) -> None:
        """Write to the tables' version what stands there, to see whether anything can be written."""
        await self._session.execute(text("UPDATE alembic_version SET version_num = version_num"))

    async def commit(self) -> None:
        """Make it lasting. When this raises ``DatabaseUnavailable``, it may have been made lasting all the same."""
        await self._session.commit()
