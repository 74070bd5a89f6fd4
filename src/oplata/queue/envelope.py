"""What travels through a queue: a body that is never touched, and metadata beside it."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

ATTEMPT_HEADER = "x-oplata-attempt"
"""How many times a worker has taken the message up before, as an integer; absent means never."""

RECEIVED_AT_HEADER = "x-oplata-received-at"
"""When the endpoint received the callback, in milliseconds since the Unix epoch."""

SOURCE_HEADER = "x-oplata-source"
"""The network address that the callback came from."""

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"

HeaderValue = str | int


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """One message.

    ``body`` is what the bank sent, byte for byte. ``message_id`` is unique per publish; a message that some other
    program put into the queue may carry none, and then it is empty. ``headers`` holds our metadata; a reader must
    work without any of it.
    """

    body: bytes
    message_id: str = ""
    content_type: str = JSON
    headers: Mapping[str, HeaderValue] = {}


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """An envelope that was handed to one consumer, to be settled by it exactly once.

    ``attempt`` counts from 1 and comes from our own header: the broker's count also rises when a worker crashes.
    ``tag`` and ``generation`` say which delivery it is to the consumer that made it; nobody else reads them.
    ``dead_reason`` says why the queue itself gave the message up, on deliveries from the dead-letter queue.
    """

    envelope: Envelope
    attempt: int = 1
    redelivered: bool = False
    tag: int = 0
    generation: int = 0
    dead_reason: str = ""
