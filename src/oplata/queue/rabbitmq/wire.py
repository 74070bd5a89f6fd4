"""pika's asyncio connection, with the places mended where one frame or one reset could hurt all others."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

from pika import exceptions, frame, spec
from pika.adapters.asyncio_connection import AsyncioConnection

_CONTENT_HEADER_SIZE = 12
_FRAME_HEADER = struct.Struct(">BHL")


class Wire(AsyncioConnection):  # type: ignore[misc]  # pika ships no type information, so its classes are Any.
    """One connection to the broker, on the running event loop."""

    def _read_frame(self) -> tuple[int, Any]:
        """Decode the next frame; a message whose headers pika cannot decode loses its headers, not the connection.

        pika raises for a date after the year 9999 (a Node program's milliseconds), for a float that is not a number
        and for field types that it does not know. The exception would end the connection, the broker would deliver
        the same message again, and one stranger's message would stop everybody's payments.
        """
        buffer: bytes = self._frame_buffer
        try:
            return frame.decode_frame(buffer)  # type: ignore[no-any-return]  # Untyped, as above.
        except (ValueError, OverflowError, OSError, struct.error, frame.exceptions.InvalidFieldTypeException):
            kind, channel_number, size = _FRAME_HEADER.unpack_from(buffer)
            if kind != spec.FRAME_HEADER:
                raise
            payload = buffer[spec.FRAME_HEADER_SIZE : spec.FRAME_HEADER_SIZE + size]
            body_size = struct.unpack_from(">Q", payload, 4)[0]
            properties = spec.BasicProperties().decode(without_headers(payload[_CONTENT_HEADER_SIZE:]))
            return spec.FRAME_HEADER_SIZE + size + 1, frame.Header(channel_number, body_size, properties)

    def _on_connection_workflow_done(self, conn_or_exc: Any) -> None:
        """Take the end of an attempt to connect; one that we ended while it shook hands is told of by a class.

        pika expects an instance there, and its assertion would fail in a callback of the event loop.
        """
        super()._on_connection_workflow_done(conn_or_exc() if isinstance(conn_or_exc, type) else conn_or_exc)

    def _output_marshaled_frames(self, marshaled_frames: Sequence[bytes]) -> None:
        """Hand a message's frames to the socket in one piece: one system call in place of three."""
        joined = b"".join(marshaled_frames)
        self.bytes_sent += len(joined)
        self.frames_sent += len(marshaled_frames)
        try:
            self._adapter_emit_data(joined)
        except RuntimeError as error:
            # uvloop stops watching a socket that was reset while its last bytes had not all been read, and nobody is
            # told before the next write. The connection is ended as any other that broke: later, with its callbacks.
            self._terminate_stream(exceptions.StreamLostError(str(error)))


def without_headers(encoded: bytes) -> bytes:
    """Return AMQP basic properties with an empty table in place of their headers; everything else stays as it is."""
    flags = struct.unpack_from(">H", encoded)[0]
    if not flags & spec.BasicProperties.FLAG_HEADERS:
        return encoded
    offset = 2
    for flag in (spec.BasicProperties.FLAG_CONTENT_TYPE, spec.BasicProperties.FLAG_CONTENT_ENCODING):
        if flags & flag:
            offset += 1 + encoded[offset]
    table_size = struct.unpack_from(">I", encoded, offset)[0]
    return encoded[:offset] + struct.pack(">I", 0) + encoded[offset + 4 + table_size :]
