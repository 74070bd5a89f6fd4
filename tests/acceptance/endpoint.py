"""The callback endpoint on a real uvicorn in a thread, a publisher that remembers, and a client that keeps no rules."""

from __future__ import annotations

import hashlib
import json
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qsl

import h11
import httpx
import uvicorn
from starlette.types import ASGIApp

from oplata.bank.keyring import Keyring
from oplata.ingest.app import CALLBACK_PATH, Hook, create_app
from oplata.ingest.callback import Callback, Limits
from oplata.ingest.networks import Gate
from oplata.ingest.server import uvicorn_config
from oplata.queue.base import Publisher
from oplata.queue.envelope import Envelope

TERMINAL = "1712345678901DEMO"
PASSWORD = "a password & more"
VECTORS = json.loads((Path(__file__).parents[1] / "data" / "signed_notifications.json").read_text("utf-8"))
PASSWORDS = {TERMINAL: PASSWORD} | {vector["body"]["TerminalKey"]: vector["password"] for vector in VECTORS}

PAYMENT: dict[str, object] = {
    "TerminalKey": TERMINAL,
    "OrderId": "order-1",
    "Success": True,
    "Status": "CONFIRMED",
    "PaymentId": 3269844626,
    "ErrorCode": "0",
    "Amount": 19900,
    "Pan": "430000******0777",
}


class _Number(str):
    __slots__ = ()


def expected_token(body: bytes) -> tuple[str, str] | None:
    """The token that stands in this JSON and the one that should: a second opinion that shares no code with ours."""
    try:
        root = json.loads(body, parse_int=_Number, parse_float=_Number)
        texts = {name: _text(value) for name, value in root.items() if name != "Token"}
        texts["Password"] = PASSWORDS[root["TerminalKey"]]
        joined = "".join(text for _, text in sorted(texts.items()) if text is not None)
        return root["Token"], hashlib.sha256(joined.encode("utf-8")).hexdigest()
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError):
        return None


def verifies(body: bytes) -> bool:
    """Whether the bank signed this JSON or, where it is not JSON, this form."""
    tokens = expected_token(body)
    if tokens is None:
        tokens = expected_token(json.dumps(dict(parse_qsl(body.decode("latin-1"), keep_blank_values=True))).encode())
    return tokens is not None and tokens[0] == tokens[1]


def _text(value: object) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, str) else None


def signed(changes: Mapping[str, object] | None = None, **more: object) -> bytes:
    """A notification with these fields, signed for the first terminal."""
    fields = {**PAYMENT, **(changes or {}), **more, "Token": ""}
    tokens = expected_token(json.dumps(fields).encode())
    assert tokens is not None
    return json.dumps({**fields, "Token": tokens[1]}).encode()


class Recorder:
    """A publisher that remembers what it was given, after an optional step that may wait or raise."""

    def __init__(self, step: Callable[[], Awaitable[None]] | None = None) -> None:
        self.envelopes: list[Envelope] = []
        self._step = step

    async def publish(self, envelope: Envelope, *, timeout_s: float) -> None:
        if self._step is not None:
            await self._step()
        self.envelopes.append(envelope)

    @property
    def bodies(self) -> list[bytes]:
        return [envelope.body for envelope in self.envelopes]


class Endpoint:
    """A running server: its port, the callback behind it, and what was published."""

    def __init__(self, server: uvicorn.Server, callback: Callback, publisher: Publisher) -> None:
        self.server = server
        self.callback = callback
        self.publisher = publisher
        self.port: int = server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}{CALLBACK_PATH}"

    @property
    def recorder(self) -> Recorder:
        """The publisher, where it is one that remembers."""
        assert isinstance(self.publisher, Recorder)
        return self.publisher

    def post(self, body: bytes, headers: Mapping[str, str] | None = None) -> httpx.Response:
        """POST on a connection of its own."""
        with httpx.Client(trust_env=False, timeout=15) as client:
            return client.post(self.url, content=body, headers=headers)

    def wire(self) -> Wire:
        """A bare connection."""
        return Wire(self.port)


class Wire:
    """A bare TCP connection that sends what it is told and reads HTTP answers strictly."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self._http = h11.Connection(h11.CLIENT)

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send these bytes; a server that has closed by now is not an error of the test."""
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            return

    def answer(self, method: str = "POST") -> tuple[int, dict[bytes, bytes], bytes] | None:
        """Read one answer: status, headers and body. None when the server closed, or said nothing, instead."""
        if self._http.our_state is not h11.IDLE:
            self._http.start_next_cycle()
        self._http.send(h11.Request(method=method, target="/", headers=[("host", "test")]))
        self._http.send(h11.EndOfMessage())
        head: h11.Response | None = None
        body = b""
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                data = self._receive()
                if not data and self._http.trailing_data[0] == b"" and head is None:
                    return None
                self._http.receive_data(data)
            elif isinstance(event, h11.Response):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                assert head is not None
                return head.status_code, dict(head.headers), body

    def closed(self) -> bool:
        """Whether the server closes the connection, without a further byte."""
        return self._receive() == b""

    def _receive(self) -> bytes:
        try:
            return self.socket.recv(65536)
        except ConnectionResetError:
            return b""


def request(body: bytes, *headers: str, method: str = "POST", path: str = CALLBACK_PATH, length: bool = True) -> bytes:
    """The bytes of a request, with these header lines; its Content-Length unless told otherwise."""
    lines = [f"{method} {path} HTTP/1.1", "Host: test", *headers]
    if length:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


@contextmanager
def serving(
    publisher: Publisher | None = None,
    *,
    limits: Limits | None = None,
    gate: Gate | None = None,
    wrap: Callable[[ASGIApp], ASGIApp] = lambda app: app,
    max_connections: int = 500,
    on_start: Sequence[Hook] = (),
    on_stop: Sequence[Hook] = (),
) -> Iterator[Endpoint]:
    """Run the endpoint, on a port of its own, until the block ends."""
    publisher = publisher or Recorder()
    keyring = Keyring({terminal_key: [password] for terminal_key, password in PASSWORDS.items()})
    callback = Callback(publisher, keyring, limits=limits, gate=gate)
    app = wrap(create_app(callback, on_start=on_start, on_stop=on_stop))
    server = uvicorn.Server(uvicorn_config(app, port=0, max_connections=max_connections, drain_s=5))
    with running(server):
        yield Endpoint(server, callback, publisher)


@contextmanager
def running(server: uvicorn.Server) -> Iterator[None]:
    """Run a server in a thread, with a loop of its own, until the block ends."""
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started or not thread.is_alive())
        assert server.started
        yield
    finally:
        server.should_exit = True
        thread.join(timeout=20)
    assert not thread.is_alive()


def wait_until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Return once the condition holds; fail when it does not in time."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "the condition did not come true in time"
        time.sleep(0.005)


def assert_refused(answer: httpx.Response, status: int, *words: str) -> None:
    """The answer has this status, and a JSON sentence with these words."""
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/json"
    sentence = answer.json()
    assert list(sentence) == ["error"]
    for word in words:
        assert word in sentence["error"]
    assert b"OK" not in answer.content
