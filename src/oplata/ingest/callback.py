"""One callback of the bank: read it, verify it, make it durable, and only then say OK."""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from time import perf_counter
from typing import Protocol

import msgspec
import structlog
from starlette.types import Receive, Scope, Send

from oplata.bank.keyring import Keyring
from oplata.bank.notification import parse
from oplata.errors import BadNotification, NotAuthentic, NotConfirmed, Overloaded, QueueUnavailable, TopologyError
from oplata.ingest import answer
from oplata.ingest.answer import Answer
from oplata.ingest.networks import Gate, Source
from oplata.ingest.outcomes import LineLimit, Outcome, Outcomes
from oplata.observability.faults import describe
from oplata.observability.timings import Timings
from oplata.queue.base import PromptPublisher, Publisher
from oplata.queue.deadlines import Deadlines
from oplata.queue.envelope import FORM, JSON, RECEIVED_AT_HEADER, SOURCE_HEADER, Envelope

Headers = Sequence[tuple[bytes, bytes]]

CONFIRM_GRACE_S = 0.5
"""The publisher keeps the limit itself; this much later we stop waiting for it, in any case before the bank does."""

_log = structlog.get_logger("oplata.ingest")
_PLAIN_JSON = JSON.encode()
_TERMINAL_KEY = re.compile(r"[A-Za-z0-9_.-]{1,20}", re.ASCII)
_OURS = frozenset({Outcome.OVERLOADED, Outcome.UNCONFIRMED, Outcome.UNAVAILABLE, Outcome.STOPPED})


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The most that a callback may take. The bank gives up after 10 s, and the buyer waits as long as it does."""

    body_bytes: int = 64 * 1024
    body_s: float = 5.0
    confirm_s: float = 8.0


def now_ms() -> int:
    """Milliseconds since the Unix epoch."""
    return time.time_ns() // 1_000_000


def message_ids() -> Callable[[], str]:
    """Gives message ids that nobody else has: one random number for all of them, and a count."""
    ours, count = os.urandom(12).hex(), itertools.count()
    return lambda: f"{ours}{next(count):08x}"


class Asker(Protocol):
    """Who waits for the answer to a request that is there as a whole."""

    def answer(self, reply: Answer) -> None:
        """Send the answer, if there is still somebody to hear it. Called once."""

    def spawn(self, answering: Coroutine[object, object, None]) -> None:
        """Run what leads to the answer. It may be canceled when the server's patience is over."""


class Callback:
    """An ASGI application for HTTP requests that takes the bank's callbacks at whatever path it is put.

    It owns no task and no state but its counters, so any number of requests may run through it at the same time; what
    is in flight is bounded by the publisher. It never raises: what nobody foresaw is logged, and answered 503.

    Our own server does not call it as ASGI has it, but hands it whole requests by ``take``.
    """

    def __init__(
        self,
        publisher: Publisher,
        keyring: Keyring,
        *,
        gate: Gate | None = None,
        limits: Limits | None = None,
        now_ms: Callable[[], int] = now_ms,
        new_message_id: Callable[[], str] | None = None,
        lines: LineLimit | None = None,
    ) -> None:
        self.outcomes = Outcomes()
        self.seconds = Timings()
        self.begun = 0
        self._publisher = publisher
        self._prompt = publisher if isinstance(publisher, PromptPublisher) else None
        self._keyring = keyring
        self._gate = gate or Gate()
        self._limits = limits or Limits()
        self._body_deadlines = Deadlines(self._limits.body_s)
        self._now_ms = now_ms
        self._new_message_id = new_message_id or message_ids()
        self._lines = lines or LineLimit()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        self.begun += 1
        began_s = perf_counter()
        client = scope.get("client")
        source = self._gate.judge(client[0] if client else "", scope["headers"])

        async def tell(reply: Answer) -> None:
            await reply.send(send)

        await self._see_through(lambda: self._decide(scope, source, receive), source, began_s, tell)

    def take(self, peer: str, headers: Headers, body: bytes, asker: Asker) -> None:
        """Answer a POST whose body is there, at once or later. ``headers`` have their names in lower case.

        A genuine callback costs a turn of the loop and no task, as long as the queue has nothing to be waited for but
        its confirm.
        """
        self.begun += 1
        began_s = perf_counter()
        until_s = asyncio.get_running_loop().time() + self._limits.confirm_s
        source = self._gate.judge(peer, headers)
        try:
            judged = self._judge(source, headers, body)
            if isinstance(judged, Answer):
                self._note(judged, source)
                asker.answer(judged)
                return

            def told(is_durable: bool) -> None:
                if is_durable:
                    self._accept(began_s)
                    asker.answer(answer.OK)
                else:
                    self._try_again(judged, source, began_s, until_s, asker)

            prompt = self._prompt
            if prompt is None or not prompt.begin(judged, told, timeout_s=self._limits.confirm_s):
                self._try_again(judged, source, began_s, until_s, asker)
        except Exception as error:
            self._note_surprise(error, source)
            asker.answer(answer.FAILED)

    def _judge(self, source: Source, headers: Headers, body: bytes) -> Envelope | Answer:
        """What is to be published, or why it is refused."""
        if not source.welcome:
            return answer.WRONG_NETWORK
        content_type, refused = read_headers(headers, self._limits.body_bytes)
        if refused is None and len(body) > self._limits.body_bytes:
            refused = answer.TOO_LONG
        refused = refused or self._verify(body, content_type)
        return self._envelope(body, content_type, source) if refused is None else refused

    def _try_again(self, envelope: Envelope, source: Source, began_s: float, until_s: float, asker: Asker) -> None:
        """Publish what the queue does not take at once, or may have lost, in what is left of the time."""

        async def tell(reply: Answer) -> None:
            asker.answer(reply)

        left_s = until_s - asyncio.get_running_loop().time()
        asker.spawn(self._see_through(lambda: self._publish_within(left_s, envelope), source, began_s, tell))

    async def _see_through(
        self,
        decide: Callable[[], Awaitable[Answer | None]],
        source: Source,
        began_s: float,
        tell: Callable[[Answer], Awaitable[None]],
    ) -> None:
        """Tell the sender of the answer, whatever becomes of it."""
        try:
            reply = await decide()
        except asyncio.CancelledError:
            # The shutdown's patience is over. Whether the callback is queued is open; the bank will come again.
            self._note(answer.STOPPING, source)
            await tell(answer.STOPPING)
            raise
        except Exception as error:
            self._note_surprise(error, source)
            await tell(answer.FAILED)
            return
        if reply is None:
            self.outcomes.count(Outcome.DISCONNECTED)
            return
        if reply is answer.OK:
            self._accept(began_s)
        else:
            self._note(reply, source)
        await tell(reply)

    async def _decide(self, scope: Scope, source: Source, receive: Receive) -> Answer | None:
        """The answer, or ``None`` when there is nobody left to hear it."""
        if not source.welcome:
            return answer.WRONG_NETWORK
        if scope["method"] != "POST":
            return answer.WRONG_METHOD
        content_type, refused = read_headers(scope["headers"], self._limits.body_bytes)
        if refused is not None:
            return refused
        body = await self._body(receive)
        if not isinstance(body, bytes):
            return body
        refused = self._verify(body, content_type)
        if refused is not None:
            return refused
        return await self._publish_within(self._limits.confirm_s, self._envelope(body, content_type, source))

    async def _publish_within(self, left_s: float, envelope: Envelope) -> Answer:
        if left_s <= 0:
            return answer.UNCONFIRMED
        try:
            async with asyncio.timeout(left_s + CONFIRM_GRACE_S):
                return await self._publish(envelope, left_s)
        except TimeoutError:
            return answer.UNCONFIRMED

    async def _body(self, receive: Receive) -> bytes | Answer | None:
        try:
            with self._body_deadlines.limit():
                return await read_body(receive, self._limits.body_bytes)
        except TimeoutError:
            return answer.TOO_SLOW

    def _verify(self, body: bytes, content_type: str) -> Answer | None:
        try:
            notification = parse(body, content_type)
        except BadNotification as error:
            return answer.malformed(str(error))
        try:
            self._keyring.verify(notification)
        except NotAuthentic:
            return msgspec.structs.replace(answer.NOT_AUTHENTIC, terminal_key=notification.terminal_key)
        return None

    def _envelope(self, body: bytes, content_type: str, source: Source) -> Envelope:
        return Envelope(
            body=body,
            message_id=self._new_message_id(),
            content_type=content_type,
            headers={RECEIVED_AT_HEADER: self._now_ms(), SOURCE_HEADER: source.address},
        )

    async def _publish(self, envelope: Envelope, timeout_s: float) -> Answer:
        try:
            await self._publisher.publish(envelope, timeout_s=timeout_s)
        except Overloaded:
            return answer.OVERLOADED
        except NotConfirmed:
            return answer.UNCONFIRMED
        except (QueueUnavailable, TopologyError):
            # The queue's own log lines say what to mend; the bank needs to know only that it should come again.
            return answer.UNAVAILABLE
        return answer.OK

    def _accept(self, began_s: float) -> None:
        self.outcomes.accepted += 1
        self.seconds.observe(perf_counter() - began_s)

    def _note(self, reply: Answer, source: Source) -> None:
        self.outcomes.count(reply.outcome)
        suppressed = self._lines.admit()
        if suppressed is None:
            return
        write = _log.warning if reply.outcome in _OURS else _log.info
        write(
            "A callback was refused.",
            action="callback.refused",
            outcome=str(reply.outcome),
            status=reply.status,
            reason=reply.reason,
            terminal_key=reply.terminal_key if _TERMINAL_KEY.fullmatch(reply.terminal_key) else None,
            source=source.address,
            suppressed=suppressed,
        )

    def _note_surprise(self, error: Exception, source: Source) -> None:
        self.outcomes.count(Outcome.FAILED)
        suppressed = self._lines.admit()
        if suppressed is not None:
            _log.error(
                "A callback failed in a way that nobody foresaw.",
                action="callback.failed",
                source=source.address,
                traceback=describe(error),
                suppressed=suppressed,
            )


def read_headers(headers: Headers, most_bytes: int) -> tuple[str, Answer | None]:
    """The body's content type, and the refusal when the request's headers alone deserve one."""
    content_type = JSON
    for name, value in headers:
        if name == b"content-type":
            if value != _PLAIN_JSON and value.partition(b";")[0].strip().lower() == FORM.encode():
                content_type = FORM
        elif name == b"content-length":
            if _declares_more(value, most_bytes):
                return content_type, answer.TOO_LONG
        elif name == b"content-encoding" and value.strip().lower() not in (b"", b"identity"):
            return content_type, answer.ENCODED
    return content_type, None


def _declares_more(length: bytes, most_bytes: int) -> bool:
    # What is not a number is not trusted to be one: the bytes that arrive are counted in any case.
    return length.isdigit() and (len(length) > 18 or int(length) > most_bytes)


async def read_body(receive: Receive, most_bytes: int) -> bytes | Answer | None:
    """The whole body, the refusal of one that is too long, or ``None`` when the client hung up before its end."""
    body: bytes | bytearray = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        part = message.get("body", b"")
        if not body:
            body = part  # Most come in one piece, which is then taken as it is.
        elif isinstance(body, bytearray):
            body += part
        else:
            body = bytearray(body) + part
        if len(body) > most_bytes:
            return answer.TOO_LONG
        if not message.get("more_body", False):
            return bytes(body)
