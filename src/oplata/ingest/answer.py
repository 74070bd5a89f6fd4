"""What the endpoint may say, each answer built once."""

from __future__ import annotations

import msgspec
from starlette.types import Send

from oplata.ingest.outcomes import Outcome

RETRY_AFTER_S = 5
"""When to come again after a 503. The bank keeps its own schedule; other senders listen."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A whole HTTP response, and what the log says of it.

    ``terminal_key`` is known only where a notification was read, and then it is what the sender claims to be.
    """

    outcome: Outcome
    status: int
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    reason: str = ""
    terminal_key: str = ""

    async def send(self, send: Send) -> None:
        """Send the response. A client that is gone by now is nobody's fault."""
        try:
            # The dictionary and the list are new each time: a middleware around us may write into them.
            await send({"type": "http.response.start", "status": self.status, "headers": [*self.headers]})
            await send({"type": "http.response.body", "body": self.body})
        except OSError:
            return


def refusal(outcome: Outcome, status: int, reason: str, *headers: tuple[bytes, bytes]) -> Answer:
    """An answer that says in a JSON sentence why it is not OK."""
    body = msgspec.json.encode({"error": reason})
    described = ((b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)))
    return Answer(outcome=outcome, status=status, body=body, headers=(*described, *headers), reason=reason)


def malformed(reason: str) -> Answer:
    """These bytes are not a notification; the sentence says why."""
    return refusal(Outcome.MALFORMED, 400, reason)


# What was not read to its end cannot be followed by another request on the same connection.
_CLOSE = (b"connection", b"close")
_LATER = (b"retry-after", b"%d" % RETRY_AFTER_S)

OK = Answer(
    outcome=Outcome.ACCEPTED,
    status=200,
    body=b"OK",
    headers=((b"content-type", b"text/plain"), (b"content-length", b"2")),
)
NOT_AUTHENTIC = refusal(Outcome.NOT_AUTHENTIC, 403, "the terminal is unknown or the token is wrong")
WRONG_NETWORK = refusal(Outcome.WRONG_NETWORK, 403, "callbacks are not taken from this network", _CLOSE)
WRONG_METHOD = refusal(Outcome.WRONG_METHOD, 405, "callbacks are sent with POST", (b"allow", b"POST"), _CLOSE)
TOO_LONG = refusal(Outcome.TOO_LONG, 413, "the body is longer than a notification can be", _CLOSE)
TOO_SLOW = refusal(Outcome.TOO_SLOW, 408, "the body did not arrive in time", _CLOSE)
ENCODED = refusal(Outcome.MALFORMED, 400, "the body is compressed; send it with no Content-Encoding", _CLOSE)
UNCONFIRMED = refusal(Outcome.UNCONFIRMED, 503, "the queue did not confirm the callback in time", _LATER)
OVERLOADED = refusal(Outcome.OVERLOADED, 503, "too many callbacks are waiting for the queue", _LATER)
UNAVAILABLE = refusal(Outcome.UNAVAILABLE, 503, "the queue cannot be reached", _LATER)
FAILED = refusal(Outcome.FAILED, 503, "the callback could not be taken", _LATER, _CLOSE)
CROWDED = refusal(Outcome.OVERLOADED, 503, "too many connections are open", _LATER, _CLOSE)
STOPPING = refusal(Outcome.STOPPED, 503, "the server is stopping", _LATER, _CLOSE)
