"""The bank in a process of its own: it reads a plan from standard input and writes what it saw to standard output.

A plan with a ``rate`` is an open loop: each callback has a time at which it is due, and its latency counts from there,
also when it could not be sent then. Without one it is a closed loop: each connection sends its next callback when the
last one was answered, until the time or the callbacks are over.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Any, cast

import uvloop

from bench.corpus import bodies

PATH = "/api/tinkoff-callback"
HEAD_END = b"\r\n\r\n"
LENGTH = b"content-length:"
LATE_LIMIT_S = 30.0


class WrongAnswer(Exception):
    """The server said something else than that it has the callback."""


class Connection(asyncio.Protocol):
    """One kept connection with one request on its way at any time."""

    def __init__(self, answered: Callable[[Connection], None], ended: asyncio.Future[None]) -> None:
        self._answered = answered
        self._ended = ended
        self._buffer = b""
        self._transport: asyncio.Transport | None = None
        self.is_over = False
        self.due_s = 0.0
        self.number = -1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's does not descend from it.

    def send(self, request: bytes, number: int, due_s: float) -> None:
        assert self._transport is not None
        self.number, self.due_s = number, due_s
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        if is_whole(self._buffer):
            if self._buffer.startswith(b"HTTP/1.1 200 "):
                self._buffer = b""
                self._answered(self)
            else:
                self._fail(f"A callback was answered with {self._buffer[:300]!r}.")

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.is_over:
            self._fail(f"The server hung up: {exc}")

    def close(self) -> None:
        self.is_over = True
        if self._transport is not None:
            self._transport.close()

    def _fail(self, why: str) -> None:
        if not self._ended.done():
            self._ended.set_exception(WrongAnswer(why))


def is_whole(buffer: bytes) -> bool:
    """Whether this is a whole answer; a body in chunks ends with an empty one."""
    end = buffer.find(HEAD_END)
    if end < 0:
        return False
    head = buffer[:end].lower()
    at = head.find(LENGTH)
    if at < 0:
        return buffer.endswith(b"0\r\n\r\n")
    return len(buffer) - end - 4 >= int(head[at + len(LENGTH) :].split(b"\r\n", 1)[0])


class Load:
    """The callbacks of one plan, and what became of them."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self._requests = [_request(body) for body in bodies(plan["first"], plan["count"])]
        self._connections = plan["connections"]
        self._port = plan["port"]
        self._seconds = plan.get("seconds")
        self._rate = plan.get("rate")
        self._next = 0
        self._idle: deque[Connection] = deque()
        self._due: deque[tuple[int, float]] = deque()
        self._is_over = False
        self._begun_at = 0.0
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.sent = 0
        self.waits_s: list[float] = []
        self.due_at: list[float] = []

    async def run(self) -> dict[str, Any]:
        """Connect, load, and count the answers."""
        loop = asyncio.get_running_loop()
        for _ in range(self._connections):
            _, line = await loop.create_connection(
                lambda: Connection(self._answered, self._ended), "127.0.0.1", self._port
            )
            self._idle.append(line)
        lines = list(self._idle)
        usage = resource.getrusage(resource.RUSAGE_SELF)
        before_s, begun_s = usage.ru_utime + usage.ru_stime, time.perf_counter()
        self._begun_at = time.time()
        if self._rate is None:
            await self._closed_loop()
        else:
            await self._open_loop(self._rate)
        seconds = time.perf_counter() - begun_s
        for line in lines:
            line.close()
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return self._told(seconds, usage.ru_utime + usage.ru_stime - before_s)

    async def _closed_loop(self) -> None:
        while self._idle:
            self._send_next(self._idle.popleft(), time.perf_counter())
        if self._seconds is None:
            await self._ended
            return
        await asyncio.wait({self._ended}, timeout=self._seconds)
        if self._ended.done():
            self._ended.result()
        self._is_over = True
        # What is on its way is counted too: the server has worked for it.
        async with asyncio.timeout(LATE_LIMIT_S):
            await self._ended

    async def _open_loop(self, rate: float) -> None:
        begun_s, wall_s = time.perf_counter(), time.time()
        for number in range(len(self._requests)):
            due_s = begun_s + number / rate
            self.due_at.append(wall_s + number / rate)
            wait_s = due_s - time.perf_counter()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            if self._idle:
                self._send(self._idle.popleft(), number, due_s)
            else:
                self._due.append((number, due_s))
            if self._ended.done():
                self._ended.result()
        async with asyncio.timeout(LATE_LIMIT_S):
            await self._ended

    def _send_next(self, line: Connection, due_s: float) -> None:
        number = self._next
        self._next += 1
        if self._seconds is not None:
            number %= len(self._requests)
        self._send(line, number, due_s)

    def _send(self, line: Connection, number: int, due_s: float) -> None:
        self.sent += 1
        line.send(self._requests[number], number, due_s)

    def _answered(self, line: Connection) -> None:
        now_s = time.perf_counter()
        self.waits_s.append(now_s - line.due_s)
        if self._rate is not None:
            if self._due:
                self._send(line, *self._due.popleft())
            else:
                self._idle.append(line)
            self._is_over = self.sent == len(self._requests)
        elif not self._is_over and (self._seconds is not None or self._next < len(self._requests)):
            self._send_next(line, now_s)
        else:
            self._is_over = True
        if self._is_over and len(self.waits_s) == self.sent and not self._ended.done():
            self._ended.set_result(None)

    def _told(self, seconds: float, cpu_s: float) -> dict[str, Any]:
        waits = sorted(self.waits_s)
        return {
            "answered": len(waits),
            "seconds": seconds,
            "p50_ms": waits[len(waits) // 2] * 1000,
            "p99_ms": waits[len(waits) * 99 // 100] * 1000,
            "generator_cpu_s": cpu_s,
            "due_at": self.due_at,
            "begun_at": self._begun_at,
        }


def _request(body: bytes) -> bytes:
    head = f"POST {PATH} HTTP/1.1\r\nHost: shop.example\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def _run(plan: dict[str, Any]) -> dict[str, Any]:
    return await Load(plan).run()


def main() -> int:
    """1 with a sentence on standard error if an answer was wrong."""
    try:
        sys.stdout.write(json.dumps(uvloop.run(_run(json.load(sys.stdin)))))
    except (WrongAnswer, TimeoutError, OSError) as error:
        sys.stderr.write(f"{error or type(error).__name__}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
