"""Whatever a client sends, and however it is cut: the short way answers each request as the long way does."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from oplata.ingest import answer
from oplata.ingest.answer import Answer
from oplata.ingest.callback import Asker, Headers
from tests.unit.test_ingest_whole import App, connected, turns

pytestmark = pytest.mark.anyio

LINE = b"POST /api/tinkoff-callback HTTP/1.1\r\nHost: shop\r\n"
CHUNKED = LINE + b"Transfer-Encoding: chunked\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
MOST_S = 0.002


def echo(body: bytes) -> Answer:
    """An answer to this body, and to no other."""
    return answer.malformed(body.decode())


class Echo(App):
    """Answers at once, later, or by a task, as the dice fall."""

    def __init__(self, rng: random.Random, *, takes_whole: bool) -> None:
        super().__init__(takes_whole=takes_whole)
        self._rng = rng

    def take(self, _peer: str, _headers: Headers, body: bytes, asker: Asker) -> None:
        self.whole.append(body)
        way = self._rng.randrange(3)
        if way == 0:
            asker.answer(echo(body))
        elif way == 1:
            asyncio.get_running_loop().call_later(self._rng.uniform(0, MOST_S), asker.answer, echo(body))
        else:
            asker.spawn(self._answer_later(body, asker))

    async def _answer_later(self, body: bytes, asker: Asker) -> None:
        await asyncio.sleep(self._rng.uniform(0, MOST_S))
        asker.answer(echo(body))

    async def __call__(self, _scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        await asyncio.sleep(self._rng.uniform(0, MOST_S))
        await echo(body).send(send)


def requests(rng: random.Random) -> bytes:
    """A few requests, one behind the other; each with a body of its own."""
    sent = b""
    for number in range(rng.randint(1, 6)):
        body = b"{%d}" % number
        sized = b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        in_chunks = b"\r\n1\r\n{\r\n%x;a=b\r\n%b\r\n0\r\n" % (len(body) - 1, body[1:])
        usual = [LINE + sized, CHUNKED + in_chunks + b"\r\n", CHUNKED + in_chunks + b"X-A: 1\r\nX-B: 2\r\n\r\n"]
        unusual = [
            LINE + b"Connection: close\r\n" + sized,
            LINE + b"Expect: 100-continue\r\n" + sized,
            LINE + b"Content-Length: 0\r\n\r\n",
            LINE.replace(b"1.1", b"1.0") + sized,
            LINE.replace(b"POST", b"GET") + b"\r\n",
            LINE.replace(b"callback", b"callback?a=1") + sized,
        ]
        sent += rng.choice(usual if rng.random() < 0.7 else unusual)
    return sent


async def written(seed: int, *, takes_whole: bool) -> tuple[bytes, bool, int]:
    """What was answered, whether the connection was closed, and how many requests went the short way."""
    rng = random.Random(seed)
    data = requests(rng)
    cuts = sorted(rng.choices(range(1, len(data)), k=rng.choice([0, 0, 1, 2, 5])))
    app = Echo(random.Random(seed), takes_whole=takes_whole)
    connection, transport, state = connected(app)
    for begin, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
        if begin < end and not transport.closed:
            connection.data_received(data[begin:end])
            await asyncio.sleep(rng.choice([0, MOST_S / 2]))
    async with asyncio.timeout(5):
        # Nobody tells of the last answer but the connection, in its bytes.
        while state.tasks or not (transport.closed or connection.cycle.response_complete):  # noqa: ASYNC110
            await asyncio.sleep(MOST_S / 4)
    connection.connection_lost(None)
    await turns()
    return b"".join(transport.written).replace(CONTINUE, b""), transport.closed, len(app.whole)


async def test_each_request_is_answered_as_on_the_long_way() -> None:
    taken = 0
    for seed in range(100):
        *short, whole = await written(seed, takes_whole=True)
        *long, _ = await written(seed, takes_whole=False)
        assert short == long, seed
        taken += whole
    assert taken > 50
