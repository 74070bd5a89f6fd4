"""pika's asyncio connection, with the places mended where one frame or one reset could hurt all others."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from pika import exceptions, frame, spec
from pika.adapters.asyncio_connection import AsyncioConnection, _AsyncioIOReference, _AsyncioIOServicesAdapter
from pika.adapters.utils.io_services_utils import _AsyncPlaintextTransport
from pika.channel import Channel as PikaChannel

from oplata.queue.rabbitmq import frames
from oplata.queue.rabbitmq.frames import INCOMPLETE, UNUSUAL

_CONTENT_HEADER_SIZE = 12
_FRAME_HEADER = struct.Struct(">BHL")
_METHOD = struct.Struct(">BHLI")
_SMALLEST_FRAME = spec.FRAME_HEADER_SIZE + 1
_READ_BYTES = 64 * 1024
"""pika by itself reads 4 KiB at a time, which are seven messages."""


OnConfirm = Callable[[int, bool, bool], None]
"""Called with a delivery tag, whether the broker took the message or refused it, and whether all up to it are meant."""


class WireChannel(PikaChannel):  # type: ignore[misc]  # pika ships no type information, so its classes are Any.
    """pika's channel, whose messages and confirms go past pika's frame objects and lists of callbacks."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._on_confirm: OnConfirm | None = None

    def basic_publish(
        self, exchange: str, routing_key: str, body: bytes, properties: Any = None, mandatory: bool = False
    ) -> None:
        """Publish. What all our messages have, the default exchange and ``mandatory``, is the fast path."""
        if exchange or not mandatory or properties is None:
            super().basic_publish(exchange, routing_key, body, properties, mandatory)
            return
        self._raise_if_not_open()
        self.connection.publish(self.channel_number, routing_key, properties, body)

    def confirm_delivery(self, on_confirm: OnConfirm, callback: Any = None) -> None:
        """Ask for confirms, those that the wire reads and those that are left to pika."""
        self._on_confirm = on_confirm

        def read_by_pika(read: Any) -> None:
            method = read.method
            on_confirm(method.delivery_tag, isinstance(method, spec.Basic.Ack), method.multiple)

        super().confirm_delivery(read_by_pika, callback)

    def confirm(self, tag: int, is_taken: bool, multiple: bool) -> bool:
        """Take the broker's word on published messages; False if it was not asked for."""
        if self._on_confirm is None:
            return False
        self._on_confirm(tag, is_taken, multiple)
        return True

    def deliver(self, message: frames.Message) -> bool:
        """Hand a message to its consumer; False if there is none, or it is being canceled."""
        consumer = self._consumers.get(message.consumer_tag)
        if consumer is None or message.consumer_tag in self._cancelled:
            return False
        consumer(self, message.method, message.properties, message.body)
        return True


class _Lookup(_AsyncioIOReference):  # type: ignore[misc]  # Untyped, as above.
    """A lookup of the broker's name that nobody hears of once it was canceled, also when it was done by then.

    pika tells of one that was done a turn of the loop later. By then the attempt to connect may have reported its end,
    and would connect for nobody, or report another end and raise in a callback of the event loop.
    """

    def __init__(self, looking: asyncio.Future[Any], on_done: Callable[[Any], object]) -> None:
        self._is_canceled = False
        super().__init__(looking, lambda found: None if self._is_canceled else on_done(found))

    def cancel(self) -> bool:
        self._is_canceled = True
        return bool(super().cancel())


class _Services(_AsyncioIOServicesAdapter):  # type: ignore[misc]  # Untyped, as above.
    """What pika asks of the event loop."""

    def _schedule_and_wrap_in_io_ref(
        self, looking: Coroutine[Any, Any, Any], on_done: Callable[[Any], object]
    ) -> _Lookup:
        return _Lookup(asyncio.ensure_future(looking, loop=self._loop), on_done)


class Wire(AsyncioConnection):  # type: ignore[misc]  # Untyped, as above.
    """One connection to the broker, on the running event loop.

    What is sent in one turn of the loop leaves in one write at its end. Deliveries and confirms, of which there is one
    for each message, are read here; all other frames, and unusual ones, are pika's to read.
    """

    def __init__(self, *args: Any, custom_ioloop: asyncio.AbstractEventLoop, **kwargs: Any) -> None:
        self._outgoing: list[bytes] = []
        self._frame_buffer = b""
        self.writes = 0
        super().__init__(*args, custom_ioloop=_Services(custom_ioloop), **kwargs)

    def publish(self, channel_number: int, routing_key: str, properties: Any, body: bytes) -> None:
        """Send a mandatory message to the default exchange."""
        largest = self._body_max_length
        pieces = frames.message_frames(channel_number, routing_key, properties, body, largest)
        self._send_later(pieces, 2 - (-len(body) // largest))

    def _create_channel(self, channel_number: int, on_open_callback: Any) -> WireChannel:
        return WireChannel(self, channel_number, on_open_callback)

    def _proto_connection_made(self, transport: Any) -> None:
        super()._proto_connection_made(transport)
        if isinstance(transport, _AsyncPlaintextTransport):
            # One read for one event of the loop: pika would read on until the socket says that there is no more.
            transport._consume = lambda: _read_once(transport)

    def _on_data_available(self, data_in: bytes) -> None:
        """Take apart what has arrived; the beginning of something that is not whole waits for the rest."""
        buffer = self._frame_buffer + data_in if self._frame_buffer else data_in
        self._frame_buffer = b""
        at, have = 0, len(buffer)
        while at < have:
            after = self._read_message(buffer, at, have) if self.is_open else UNUSUAL
            if after == UNUSUAL:
                after = self._read_other(buffer, at, have)
            if after == INCOMPLETE:
                break
            self.bytes_received += after - at
            at = after
        self._frame_buffer = buffer[at:]

    def _read_message(self, buffer: bytes, at: int, have: int) -> int:
        """Read a delivery or a confirm; return the offset behind it, ``INCOMPLETE``, or ``UNUSUAL`` for all else."""
        if have - at < _SMALLEST_FRAME:
            return INCOMPLETE
        if buffer[at] != spec.FRAME_METHOD or have - at < _METHOD.size:
            return UNUSUAL
        _, channel_number, size, index = _METHOD.unpack_from(buffer, at)
        end: int = at + _SMALLEST_FRAME + size
        if end > have:
            return INCOMPLETE
        channel = self._channels.get(channel_number)
        if channel is None or buffer[end - 1] != spec.FRAME_END:
            return UNUSUAL
        if index == frames.DELIVER:
            end, message = frames.read_delivery(buffer, at)
            if message is None or channel.deliver(message):
                self.frames_received += 3 if message is not None else 0
                return end
        elif index in (frames.ACK, frames.NACK):
            tag, multiple = frames.read_confirm(buffer, at + spec.FRAME_HEADER_SIZE)
            if channel.confirm(tag, index == frames.ACK, multiple):
                self.frames_received += 1
                return end
        return UNUSUAL

    def _read_other(self, buffer: bytes, at: int, have: int) -> int:
        """Have pika read one frame; return the offset behind it, or ``INCOMPLETE``."""
        end = have
        if have - at >= _SMALLEST_FRAME and not buffer.startswith(b"AMQP", at):
            end = min(have, at + _SMALLEST_FRAME + _FRAME_HEADER.unpack_from(buffer, at)[2])
        # pika looks at the beginning of its buffer, and copies all of it; so it sees no more than this frame.
        self._frame_buffer = buffer[at:end]
        consumed: int
        consumed, value = self._read_frame()
        self._frame_buffer = b""
        if not value:
            return INCOMPLETE
        self._process_frame(value)
        return at + consumed

    def _read_frame(self) -> tuple[int, Any]:
        """Decode the next frame; a message whose headers pika cannot decode loses its headers, not the connection.

        pika raises for a date after the year 9999 (a Node program's milliseconds), for a float that is not a number
        and for field types that it does not know. The exception would end the connection, the broker would deliver
        the same message again, and one stranger's message would stop everybody's payments.
        """
        buffer = self._frame_buffer
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
        """Keep these bytes, in their order, for the one write at the end of this turn of the loop."""
        self._send_later(marshaled_frames, len(marshaled_frames))

    def _send_later(self, pieces: Sequence[bytes], count: int) -> None:
        if not self._outgoing:
            self.ioloop.call_soon(self._flush)
        self._outgoing += pieces
        self.frames_sent += count

    def _flush(self) -> None:
        joined = b"".join(self._outgoing)
        self._outgoing.clear()
        transport = self._transport
        if transport is None:
            return  # Lost since, and so is what was to be sent; everybody hears of that.
        self.bytes_sent += len(joined)
        self.writes += 1
        try:
            waiting = transport.get_write_buffer_size()
            self._adapter_emit_data(joined)
            if not waiting and transport.get_write_buffer_size() and isinstance(transport, _AsyncPlaintextTransport):
                # pika would wait for the loop to say that the socket takes something; it nearly always does.
                transport._on_socket_writable()
        except RuntimeError as error:
            # uvloop stops watching a socket that was reset while its last bytes had not all been read, and nobody is
            # told before the next write. The connection is ended as any other that broke: later, with its callbacks.
            self._terminate_stream(exceptions.StreamLostError(str(error)))


def _read_once(transport: Any) -> None:
    data = transport._sock.recv(_READ_BYTES)
    if not data:
        raise transport.RxEndOfFile
    transport._protocol.data_received(data)


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
