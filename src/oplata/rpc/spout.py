"""One producer that hands its chunks to its client itself, so that each costs one turn of one task."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType

from oplata.rpc.pump import Producer, Put


class Spout:
    """Runs a producer whose every chunk is sent before the next one is made: a slow client makes it wait.

    The producer is one task from beginning to end, so that what it holds open is left in the task that entered it.
    Leaving the context ends it. After every ``turn`` chunks others are let in, for there may be no end of what is at
    hand and a client that takes it all at once. Silence is measured by one timer of the whole stream, and not anew for
    each chunk.
    """

    def __init__(self, producer: Producer, send: Put, turn: int) -> None:
        self._producer = producer
        self._send = send
        self._turn = turn
        self._sent = 0
        self._failure: Exception | None = None
        self._now_s: Callable[[], float] = asyncio.get_running_loop().time
        self._sent_at_s = self._now_s()
        self._is_sending = False
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Spout:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    def stop(self) -> None:
        """Ends the producer, and with it the stream."""
        if self._task is not None:
            self._task.cancel()

    async def until_ended(self, silence_s: float, ping: bytes, most_s: float | None) -> None:
        """Waits for the end, or for so long at most, and sends a ping where nothing was sent for ``silence_s``.

        Raises what sending failed with.
        """
        assert self._task is not None  # noqa: S101  Whoever waits has entered the context.
        ends_at_s = float("inf") if most_s is None else self._now_s() + most_s
        while not self._task.done() and (now_s := self._now_s()) < ends_at_s:
            # A chunk that is on its way will reach the client as soon as it reads again, and a ping no sooner.
            quiet_until_s = (now_s if self._is_sending else self._sent_at_s) + silence_s
            if now_s < quiet_until_s:
                await asyncio.wait({self._task}, timeout=min(quiet_until_s, ends_at_s) - now_s)
            else:
                await self._send(ping)
                self._sent_at_s = self._now_s()
        if self._failure is not None:
            raise self._failure

    async def _run(self) -> None:
        await self._producer(self._put)

    async def _put(self, chunk: bytes) -> None:
        self._is_sending = True
        try:
            await self._send(chunk)
        except Exception as error:
            # It is the connection that failed, and no error of the producer's that it could tell the client.
            self._failure = error
            raise asyncio.CancelledError from error
        finally:
            self._is_sending = False
            self._sent_at_s = self._now_s()
        self._sent += 1
        if self._sent % self._turn == 0:
            await asyncio.sleep(0)
