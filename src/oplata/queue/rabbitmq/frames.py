"""The three frames of a message as bytes, both ways, for the path that every message takes. Pure.

pika builds several objects for each frame and looks its callbacks up by name, which costs more than all that we do with
a message. What is unusual is left to pika: these functions say so, and never guess.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Any

import msgspec
from pika import spec

_END = bytes((spec.FRAME_END,))
_FRAME = struct.Struct(">BHL")
_CONTENT = struct.Struct(">BHLHHQH")
_TEXT = struct.Struct(">cI")
_NUMBER = struct.Struct(">cq")
_SMALL_NUMBER = struct.Struct(">ci")
_SIZE = struct.Struct(">I")
_TAG_AND_FLAG = struct.Struct(">QB")
_LONG = struct.Struct(">q")
_INT = struct.Struct(">i")

DELIVER, ACK, NACK = spec.Basic.Deliver.INDEX, spec.Basic.Ack.INDEX, spec.Basic.Nack.INDEX
_FRAME_SIZE = spec.FRAME_HEADER_SIZE
_MULTIPLE = 1
_SMALLEST, _LARGEST = -(2**31), 2**31 - 1

_MORE_FLAGS = 1
_TYPE, _ENCODING, _HEADERS, _MODE = 1 << 15, 1 << 14, 1 << 13, 1 << 12
_PRIORITY, _CORRELATION, _REPLY_TO, _EXPIRATION, _ID, _TIME = (1 << place for place in (11, 10, 9, 8, 7, 6))

INCOMPLETE, UNUSUAL = 0, -1
"""What ``read_delivery`` and ``read_confirm`` say instead of an offset."""


class Properties(msgspec.Struct, kw_only=True):
    """The properties that we write. Encoded to the same bytes as pika's own, in a fifth of the time."""

    content_type: str
    delivery_mode: int
    timestamp: int
    message_id: str | None
    headers: dict[str, str | int] | None
    expiration: str | None = None

    def encode(self) -> list[bytes]:
        """The pieces that pika's ``encode`` makes. Raises what it raises for a short string that is too long."""
        flags = _TYPE | _MODE | _TIME
        pieces = [b"", _short(self.content_type)]
        if self.headers is not None:
            flags |= _HEADERS
            table = b"".join([_short(name) + _value(value) for name, value in self.headers.items()])
            pieces += (_SIZE.pack(len(table)), table)
        pieces.append(bytes((self.delivery_mode,)))
        if self.expiration is not None:
            flags |= _EXPIRATION
            pieces.append(_short(self.expiration))
        if self.message_id is not None:
            flags |= _ID
            message_id = self.message_id.encode()
            pieces += (bytes((len(message_id),)), message_id)
        pieces.append(self.timestamp.to_bytes(8, "big"))
        pieces[0] = flags.to_bytes(2, "big")
        return pieces


class Received(msgspec.Struct):
    """Of a message's properties, what a worker gets to see; named as pika names them."""

    content_type: str | None
    message_id: str | None
    headers: dict[str, Any] | None


class Delivered(msgspec.Struct):
    """Of the method that brings a message, what a consumer needs; named as pika names it."""

    delivery_tag: int
    redelivered: bool


class Message(msgspec.Struct):
    """A whole message as it was read."""

    channel_number: int
    consumer_tag: str
    method: Delivered
    properties: Received
    body: bytes


def message_frames(channel_number: int, routing_key: str, properties: Any, body: bytes, largest: int) -> list[bytes]:
    """A mandatory publish to the default exchange as bytes; a body over ``largest`` bytes takes several frames."""
    encoded = b"".join(properties.encode())
    size = len(encoded) + 12
    head = _FRAME.pack(spec.FRAME_HEADER, channel_number, size)
    pieces = [
        _publish(channel_number, routing_key),
        head,
        b"\0\x3c\0\0",
        len(body).to_bytes(8, "big"),
        encoded,
        _END,
    ]
    for at in range(0, len(body), largest):
        part = body[at : at + largest]
        pieces += (_FRAME.pack(spec.FRAME_BODY, channel_number, len(part)), part, _END)
    return pieces


def read_delivery(buffer: bytes, at: int) -> tuple[int, Message | None]:
    """The message whose ``basic.deliver`` begins at ``at``, and the offset behind it.

    In place of the offset ``INCOMPLETE`` when some of it has not arrived, and ``UNUSUAL`` when it is for pika to read:
    several body frames, no body, or properties of a kind that we do not know.
    """
    have = len(buffer)
    _, channel_number, size = _FRAME.unpack_from(buffer, at)
    head = at + _FRAME_SIZE + size + 1
    if head + _CONTENT.size > have:
        return INCOMPLETE, None
    kind, number, size, class_id, _, body_size, flags = _CONTENT.unpack_from(buffer, head)
    first = head + _FRAME_SIZE + size + 1
    if kind != spec.FRAME_HEADER or number != channel_number or class_id != spec.BasicProperties.INDEX:
        return UNUSUAL, None
    if first + _FRAME_SIZE > have:
        return INCOMPLETE, None
    kind, number, size = _FRAME.unpack_from(buffer, first)
    body = first + _FRAME_SIZE
    end = body + size
    if kind != spec.FRAME_BODY or number != channel_number or size != body_size:
        return UNUSUAL, None
    if end >= have:
        return INCOMPLETE, None
    if buffer[head - 1] != spec.FRAME_END or buffer[first - 1] != spec.FRAME_END or buffer[end] != spec.FRAME_END:
        return UNUSUAL, None
    try:
        properties = _properties(buffer, head + _CONTENT.size, first - 1, flags)
        place = at + _FRAME_SIZE + 5
        after = place + buffer[place - 1]
        tag, redelivered = _TAG_AND_FLAG.unpack_from(buffer, after)
        consumer_tag = buffer[place:after].decode()
    except (ValueError, IndexError, struct.error):
        return UNUSUAL, None
    if properties is None:
        return UNUSUAL, None
    method = Delivered(tag, bool(redelivered & 1))
    return end + 1, Message(channel_number, consumer_tag, method, properties, buffer[body:end])


def read_confirm(buffer: bytes, at: int) -> tuple[int, bool]:
    """The delivery tag of a ``basic.ack`` or ``basic.nack`` whose payload begins at ``at``, and whether it is multiple.

    The frame has to be whole.
    """
    tag, flags = _TAG_AND_FLAG.unpack_from(buffer, at + 4)
    return tag, bool(flags & _MULTIPLE)


@lru_cache(maxsize=64)
def _publish(channel_number: int, routing_key: str) -> bytes:
    pieces = spec.Basic.Publish(exchange="", routing_key=routing_key, mandatory=True).encode()
    payload = struct.pack(">I", spec.Basic.Publish.INDEX) + b"".join(pieces)
    return _FRAME.pack(spec.FRAME_METHOD, channel_number, len(payload)) + payload + _END


@lru_cache(maxsize=256)
def _short(text: str) -> bytes:
    pieces: list[bytes] = []
    spec.data.encode_short_string(pieces, text)
    return b"".join(pieces)


def _value(value: str | int) -> bytes:
    if isinstance(value, str):
        encoded = value.encode()
        return _TEXT.pack(b"S", len(encoded)) + encoded
    if isinstance(value, bool):
        return b"t\1" if value else b"t\0"
    return _SMALL_NUMBER.pack(b"I", value) if _SMALLEST <= value <= _LARGEST else _NUMBER.pack(b"l", value)


def _properties(buffer: bytes, at: int, end: int, flags: int) -> Received | None:
    """Read up to the message id; what stands behind it is nothing to us."""
    content_type = message_id = headers = None
    if flags & (_MORE_FLAGS | _ENCODING):
        return None
    if flags & _TYPE:
        content_type, at = _read_short(buffer, at)
    if flags & _HEADERS:
        size = _SIZE.unpack_from(buffer, at)[0]
        at += 4 + size
        headers = _read_table(buffer, at - size, at)
        if headers is None or at > end:
            return None
    if flags & _ID:
        at += (flags & _MODE != 0) + (flags & _PRIORITY != 0)
        for flag in (_CORRELATION, _REPLY_TO, _EXPIRATION):
            if flags & flag:
                at += 1 + buffer[at]
        message_id, at = _read_short(buffer, at)
    return Received(content_type, message_id, headers) if at <= end else None


def _read_short(buffer: bytes, at: int) -> tuple[str, int]:
    end = at + 1 + buffer[at]
    return buffer[at + 1 : end].decode(), end


def _read_table(buffer: bytes, at: int, end: int) -> dict[str, Any] | None:
    """The table of headers, or None when it holds more than texts, whole numbers and truth values."""
    table: dict[str, Any] = {}
    while at < end:
        name, at = _read_short(buffer, at)
        kind = buffer[at]
        at += 1
        if kind == 0x53:  # S, a text
            size = _SIZE.unpack_from(buffer, at)[0]
            at += 4 + size
            table[name] = buffer[at - size : at].decode()
        elif kind in (0x6C, 0x4C):  # l and L, eight bytes
            table[name] = _LONG.unpack_from(buffer, at)[0]
            at += 8
        elif kind == 0x49:  # I, four bytes
            table[name] = _INT.unpack_from(buffer, at)[0]
            at += 4
        elif kind == 0x74:  # t, a truth value
            table[name] = bool(buffer[at])
            at += 1
        else:
            return None
    return table if at == end else None
