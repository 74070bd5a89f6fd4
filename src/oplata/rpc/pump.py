"""Producers on one side, one slow client on the other, and a bounded number of chunks between them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Final, TypeAlias

Put: TypeAlias = Callable[[bytes], Awaitable[None]]
Producer: TypeAlias = Callable[[Put], Awaitable[None]]

SILENCE: Final = b""


class Pump:
    """Runs producers side by side and hands out their chunks in the order in which they come.

    Each producer is one task from beginning to end, so that what it holds open (a generator with a timeout in it) is
    left in the task that entered it. Leaving the context ends them all.
    """

    def __init__(self, producers: Sequence[Producer], capacity: int) -> None:
        self._producers = producers
        self._room = asyncio.Semaphore(capacity)
        self._chunks: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._tasks: list[asyncio.Task[None]] = []
        self._running = len(producers)

    async def __aenter__(self) -> Pump:
        self._tasks = [asyncio.create_task(self._run(producer)) for producer in self._producers]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def stop(self) -> None:
        """Ends the producers; ``next`` gives what was made already, then None."""
        for task in self._tasks:
            task.cancel()

    async def _run(self, producer: Producer) -> None:
        try:
            await producer(self._put)
        finally:
            self._running -= 1
            if self._running == 0:
                self._chunks.put_nowait(None)

    async def _put(self, chunk: bytes) -> None:
        await self._room.acquire()
        self._chunks.put_nowait(chunk)

    async def next(self, silence_s: float) -> bytes | None:
        """The next chunk; SILENCE where none came in time; None at the end."""
        try:
            async with asyncio.timeout(silence_s):
                chunk = await self._chunks.get()
        except TimeoutError:
            return SILENCE
        if chunk is not None:
            self._room.release()
        return chunk
