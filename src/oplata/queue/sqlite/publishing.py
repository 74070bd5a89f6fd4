"""How messages get into the file: those of a group by one statement, and straight into the hands of who waits."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from itertools import accumulate, chain

import msgspec

from oplata.errors import DataRejected
from oplata.queue.envelope import ATTEMPT_HEADER, Delivery, Envelope, HeaderValue

_INTO = """
INSERT INTO messages (id, state, due_at_ms, set_at_ms, seat, leases, message_id, content_type, headers, body)
"""

_ONE = _INTO + "VALUES (?, ?, 0, ?, ?, ?, ?, ?, ?, ?)"

# The texts and bytes of all messages lie in one value, one behind the other, and a JSON array says where. One step of
# one statement takes them all: each further one would have to win Python's lock back from the event loop.
_MANY = (
    _INTO
    + """
SELECT ?1 + key, ?2, 0, ?3, ?4, ?5,
CAST(substr(?6, json_extract(value, '$[0]'), json_extract(value, '$[1]')) AS TEXT),
CAST(substr(?6, json_extract(value, '$[2]'), json_extract(value, '$[3]')) AS TEXT),
substr(?6, json_extract(value, '$[4]'), json_extract(value, '$[5]')),
substr(?6, json_extract(value, '$[6]'), json_extract(value, '$[7]'))
FROM json_each(?7)
"""
)
_PARTS = 4

_headers_decoder = msgspec.json.Decoder(dict[str, HeaderValue])


class Row(msgspec.Struct, frozen=True):
    """A message as it is stored. ``told`` are the headers as whoever reads it will see them."""

    message_id: str
    content_type: str
    headers: bytes
    body: bytes
    told: Mapping[str, HeaderValue]

    @property
    def size(self) -> int:
        """About how many bytes it takes."""
        return len(self.message_id) + len(self.content_type) + len(self.headers) + len(self.body)


def to_row(envelope: Envelope) -> Row:
    """Encode outside the transaction, so that what cannot be stored fails alone. Raises ``DataRejected``."""
    try:
        envelope.message_id.encode()
        envelope.content_type.encode()
        headers = msgspec.json.encode(envelope.headers)
        # What cannot be read back would stand in everyone's way.
        told = _headers_decoder.decode(headers)
    except (ValueError, TypeError, OverflowError, msgspec.MsgspecError) as error:
        raise DataRejected(f"The SQLite queue cannot store the message's metadata: {type(error).__name__}.") from error
    return Row(envelope.message_id, envelope.content_type, headers, envelope.body, told)


def append(
    connection: sqlite3.Connection, rows: Sequence[Row], *, first_id: int, now_ms: int, seat: str | None
) -> None:
    """Append these under ascending ids, ready for anybody or, if there is a ``seat``, leased to it."""
    place = ("ready", now_ms, None, 0) if seat is None else ("leased", now_ms, seat, 1)
    if len(rows) == 1:
        [row] = rows
        connection.execute(_ONE, (first_id, *place, row.message_id, row.content_type, row.headers, row.body))
    elif rows:
        parts = [(row.message_id.encode(), row.content_type.encode(), row.headers, row.body) for row in rows]
        whole = list(chain.from_iterable(parts))
        lengths = list(map(len, whole))
        # SQLite counts bytes from 1.
        spans = list(chain.from_iterable(zip(accumulate(lengths, initial=1), lengths, strict=False)))
        width = 2 * _PARTS
        where = [spans[start : start + width] for start in range(0, len(spans), width)]
        connection.execute(_MANY, (first_id, *place, b"".join(whole), msgspec.json.encode(where).decode()))


def to_delivery(row: tuple[int, int, int, str, str, str, bytes, bytes]) -> Delivery:
    """What a row of the table is to whoever takes it."""
    tag, generation, redelivered, dead_reason, message_id, content_type, raw_headers, body = row
    headers = _headers_decoder.decode(raw_headers)
    return Delivery(
        envelope=Envelope(body=body, message_id=message_id, content_type=content_type, headers=headers),
        attempt=_attempt(headers.get(ATTEMPT_HEADER)),
        redelivered=bool(redelivered),
        tag=tag,
        generation=generation,
        dead_reason=dead_reason,
    )


def handed_over(row: Row, tag: int) -> Delivery:
    """The same for one that was never in anybody's hands before."""
    return Delivery(
        envelope=Envelope(body=row.body, message_id=row.message_id, content_type=row.content_type, headers=row.told),
        attempt=_attempt(row.told.get(ATTEMPT_HEADER)),
        tag=tag,
        generation=1,
    )


def _attempt(taken_up_before: HeaderValue | None) -> int:
    """The header is data from outside when somebody else wrote the message; nonsense in it means the first attempt."""
    if isinstance(taken_up_before, int) and taken_up_before > 0:
        return taken_up_before + 1
    return 1
