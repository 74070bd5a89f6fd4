"""A worker that kills itself at the n-th statement, or between the n-th await and what follows it.

Run as a program it reads one job a line from standard input, and forks for each: a fork of a process that has imported
everything costs a hundredth of a new one. It prints the exit status of each, negative for a signal.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
from collections.abc import Awaitable, Coroutine, Generator, Sequence
from typing import Any

import structlog
from sqlalchemy import event
from sqlalchemy.engine import Engine

from oplata import Change, Handlers, Transaction
from oplata.queue.sqlite import SqliteQueue
from oplata.storage.engine import Database
from oplata.storage.session import Session
from oplata.worker.batch import read
from oplata.worker.handling import Handling
from oplata.worker.settlement import Settlement
from oplata.worker.stats import Stats
from tests.databases import KEYRING, NOW_MS

BATCH = 100
RECEIVE_S = 10.0
NEVER = 0

app = Handlers()


@app.on("paid")
async def ship(change: Change, tx: Transaction) -> None:
    """The shop's own part in the transaction."""
    await tx.execute("INSERT INTO shipments (order_id) VALUES (:order_id)", order_id=change.order_id)


class Countdown:
    """Kills this process when it has been told of so many points. ``NEVER`` lets it live."""

    def __init__(self, number: int) -> None:
        self._left = number

    def point(self) -> None:
        """The worker stands at a point where it may die."""
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def listen(self) -> None:
        """Each statement is two points, before it is sent and when it was answered; the commit's beginning is one."""
        for name in ("before_cursor_execute", "after_cursor_execute"):
            event.listen(Engine, name, lambda *_: self.point())
        ask, commit = Session.ask, Session.commit

        async def asked(session: Session, *statement: object) -> Sequence[Any]:
            self.point()
            rows = await ask(session, *statement)
            self.point()
            return rows

        async def committed(session: Session) -> None:
            self.point()
            await commit(session)

        Session.ask = asked  # type: ignore[method-assign, assignment]
        Session.commit = committed  # type: ignore[method-assign, assignment]


class Stepped(Awaitable[None]):
    """A coroutine, with a point at each place where it waits: just as it begins to, and just as it goes on."""

    def __init__(self, coroutine: Coroutine[Any, Any, object], countdown: Countdown) -> None:
        self._coroutine = coroutine
        self._countdown = countdown

    def __await__(self) -> Generator[Any, Any, None]:
        step = self._coroutine.__await__()
        value: object = None
        while True:
            try:
                waited_for = step.send(value)
            except StopIteration:
                return
            self._countdown.point()
            value = yield waited_for
            self._countdown.point()


async def work(database_url: str, queue_path: str, kind: str, number: int) -> None:
    """Take a batch, bring it to its end, and leave in good order, unless death comes before."""
    countdown = Countdown(number)
    database, queue = Database(database_url), SqliteQueue(queue_path, retry_delays_ms=[100])
    await database.start()
    await queue.start()
    consumer = queue.consumer(prefetch=BATCH)
    deliveries = await consumer.receive(limit=BATCH, timeout_s=RECEIVE_S)
    settlement = Settlement(
        database=database,
        stats=Stats(),
        stopping=asyncio.Event(),
        pause=lambda _: asyncio.sleep(0.1),
        hold_s=10,
        retry_delays_ms=[100],
        max_attempts=20,
        announce=None,
        now_ms=lambda: NOW_MS,
        rng=random.Random(1),
        handling=Handling(app),
    )
    settling = settlement.settle(consumer, read(deliveries, KEYRING, NOW_MS))
    if kind == "statement":
        countdown.listen()
        await settling
    else:
        await Stepped(settling, countdown)
    await consumer.close()
    await queue.stop()
    await database.stop()


def main() -> None:
    """Fork for each job and say how it ended."""
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
            asyncio.run(work(**json.loads(line)))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
