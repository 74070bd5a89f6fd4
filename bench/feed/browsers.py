"""Many subscriptions over HTTP in a process of its own, which shares the machine with what it measures: bare sockets,
of which nothing is read but the moment and the name of each change.
"""

from __future__ import annotations

import re
import resource
import selectors
import socket
import sys
import time
from collections import defaultdict

import msgspec

ASKED = b"GET /api/trpc/orders.onStatusChange?input=%7B%7D HTTP/1.1\r\nhost: bench\r\naccept: text/event-stream\r\n\r\n"
OPENED = b"event: connected"
NAME = re.compile(rb'"(bench-[0-9a-f]+)"')
TIMEOUT_S = 60.0
READ_BYTES = 65_536
REST_S = 0.001
"""Between two looks. Whoever sleeps until the next event is woken for each of them, and that costs the server more than
the event does; so each is found up to this much too late.
"""


class Seen(msgspec.Struct):
    """When each change came, in seconds of the system's clock, and what CPU time it took to see that."""

    came: dict[str, list[float]]
    cpu_s: float


def opened(port: int, count: int) -> list[socket.socket]:
    """So many subscriptions to every change, each of which has been told that it is open."""
    made = []
    for _ in range(count):
        one = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S)
        one.sendall(ASKED)
        said = b""
        while OPENED not in said:
            piece = one.recv(READ_BYTES)
            if not piece:
                raise ConnectionError(f"the subscription was closed before it began: {said[:200]!r}")
            said += piece
        one.setblocking(False)
        made.append(one)
    return made


def arrivals(browsers: list[socket.socket], expected: int) -> dict[str, list[float]]:
    """When each change came, in seconds of the system's clock, once so many have come or none came for long."""
    pieces: list[tuple[float, bytes]] = []
    came: dict[str, list[float]] = defaultdict(list)
    with selectors.DefaultSelector() as selector:
        for one in browsers:
            selector.register(one, selectors.EVENT_READ)
        known = 0
        while known < expected:
            ready = selector.select(TIMEOUT_S)
            if not ready:
                break
            for key, _ in ready:
                read = key.fileobj.recv(READ_BYTES)  # type: ignore[union-attr]  # Sockets are what was registered.
                if not read:
                    raise ConnectionError("a subscription was closed")
                pieces.append((time.monotonic(), read))
                known += read.count(b'"bench-')
            time.sleep(REST_S)
    for at_s, piece in pieces:
        for name in NAME.findall(piece):
            came[name.decode()].append(at_s)
    return came


def main() -> None:
    port, count, expected = (int(given) for given in sys.argv[1:])
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, count + 500), hard), hard))
    browsers = opened(port, count)
    sys.stdout.write("opened\n")
    sys.stdout.flush()
    began_s = time.process_time()
    came = arrivals(browsers, expected)
    sys.stdout.buffer.write(msgspec.json.encode(Seen(came, time.process_time() - began_s)))


if __name__ == "__main__":
    main()
