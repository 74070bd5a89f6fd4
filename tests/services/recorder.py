"""An HTTP endpoint on loopback that takes whatever is posted and keeps it, for programs that report to somebody."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple


class Posted(NamedTuple):
    """One request."""

    path: str
    body: bytes


class Recorder:
    """Its URL, and what was posted there."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.posted: list[Posted] = []

    def bodies(self, path: str) -> list[bytes]:
        """What was posted to paths that hold this."""
        return [each.body for each in self.posted if path in each.path]


@contextmanager
def recorder() -> Iterator[Recorder]:
    """One that runs until the end of the block."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", "0")))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            recording.posted.append(Posted(self.path, body))
            self.send_response(200)
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  The base class calls it so.
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    recording = Recorder(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield recording
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
