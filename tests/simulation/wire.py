"""pika's connection and channel, as the program sees them, over a simulated cable to the simulated broker.

Only what the program uses is here; the program's own publisher, consumer and sessions are the real ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pika import exceptions, frame, spec

from tests.simulation.broker import Broker, ServerChannel, ServerConnection
from tests.simulation.cable import Cable
from tests.simulation.loop import Process

CONNECT_TIMEOUT_S = 4.0


class Wire:
    """A connection that is opening, open or gone; in place of ``oplata.queue.rabbitmq.wire.Wire``."""

    def __init__(
        self,
        broker: Broker,
        process: Process,
        parameters: Any,
        *,
        on_open_callback: Callable[[Any], None],
        on_open_error_callback: Callable[[Any, BaseException], None],
        on_close_callback: Callable[[Any, BaseException], None],
        custom_ioloop: object,
    ) -> None:
        self.params = parameters
        self.server_properties = {"product": "RabbitMQ", "version": "4.3.6", "cluster_name": "simulated"}
        self.is_open = False
        self.is_closed = False
        self._broker = broker
        self._process = process
        self._on_open = on_open_callback
        self._on_open_error = on_open_error_callback
        self._on_close = on_close_callback
        self._on_blocked: Callable[[Any, Any], None] = lambda _wire, _frame: None
        self._on_unblocked: Callable[[Any, Any], None] = lambda _wire, _frame: None
        self._channels: list[Channel] = []
        self.cable = Cable(broker.rng, process, broker.process)
        self.cable.on_client_lost = lambda: self._gone(exceptions.StreamLostError("the connection was reset"))
        broker.cables.append(self.cable)
        process.later(broker.latency_s() * 4, self._connect)

    @property
    def bytes_received(self) -> int:
        """The broker sends heartbeats as long as it and the cable live."""
        heard = self._broker.is_up and not self.cable.is_silent and not self.cable.is_cut
        return int(self._process.loop.time() * 1000) if heard else 0

    def add_on_connection_blocked_callback(self, callback: Callable[[Any, Any], None]) -> None:
        self._on_blocked = callback

    def add_on_connection_unblocked_callback(self, callback: Callable[[Any, Any], None]) -> None:
        self._on_unblocked = callback

    def channel(self, on_open_callback: Callable[[Any], None]) -> Channel:
        self._demand_open()
        channel = Channel(self, self._server, on_open_callback)
        self._channels.append(channel)
        return channel

    def close(self) -> None:
        self._demand_open()
        self.is_open = False
        for channel in self._channels:
            channel.is_open = False
        self.cable.to_server(
            lambda: self._server.close(lambda: self._gone(exceptions.ConnectionClosedByClient(200, "bye")))
        )

    def block(self, blocked: bool) -> None:
        """The broker's word on whether it takes messages."""
        if not self.is_closed:
            (self._on_blocked if blocked else self._on_unblocked)(self, None)

    def _terminate_stream(self, reason: BaseException) -> None:
        self.cable.cut(flush=False)
        self._process.loop.call_soon(self._gone, reason, context=self._process.context)

    def _connect(self) -> None:
        if self.is_closed:
            return
        if not self._broker.is_up:
            self._gone(exceptions.AMQPConnectionError("refused"))
            return
        self._server = ServerConnection(self._broker, self)
        self.is_open = True
        self._on_open(self)

    def _gone(self, reason: BaseException) -> None:
        if self.is_closed:
            return
        was_open, self.is_open, self.is_closed = self.is_open or hasattr(self, "_server"), False, True
        self.cable.cut(flush=True)
        for channel in self._channels:
            channel.gone(reason)
        (self._on_close if was_open else self._on_open_error)(self, reason)

    def _demand_open(self) -> None:
        if not self.is_open:
            raise exceptions.ConnectionWrongStateError("the connection is not open")


class Channel:
    """As pika's channel: what is called here happens at the broker later, or never."""

    def __init__(self, wire: Wire, server: ServerConnection, on_open: Callable[[Any], None]) -> None:
        self.is_open = False
        self._wire = wire
        self._is_gone = False
        self._on_close: list[Callable[[Any, BaseException], None]] = []
        self._on_return: Callable[[Any, Any, Any, bytes], None] = lambda *_: None
        self._on_confirm: Callable[[int, bool, bool], None] = lambda *_: None
        self._on_message: Callable[[Any, Any, Any, bytes], None] = lambda *_: None
        self._on_cancel: Callable[[Any], None] = lambda _frame: None
        self._server: ServerChannel = server.channel(self)
        wire.cable.to_server(lambda: wire.cable.to_client(lambda: self._opened(on_open)))

    def add_on_close_callback(self, callback: Callable[[Any, BaseException], None]) -> None:
        self._on_close.append(callback)

    def add_on_return_callback(self, callback: Callable[[Any, Any, Any, bytes], None]) -> None:
        self._on_return = callback

    def add_on_cancel_callback(self, callback: Callable[[Any], None]) -> None:
        self._on_cancel = callback

    def confirm_delivery(self, on_confirm: Callable[[int, bool, bool], None], callback: Callable[[Any], None]) -> None:
        self._on_confirm = on_confirm
        self._ask(lambda: self._server.select_confirms(), spec.Confirm.SelectOk(), callback)

    def exchange_declare(self, name: str, kind: str, durable: bool, callback: Callable[[Any], None]) -> None:
        self._ask(lambda: None, spec.Exchange.DeclareOk(), callback)

    def queue_declare(
        self,
        name: str,
        callback: Callable[[Any], None],
        durable: bool = False,
        passive: bool = False,
        arguments: dict[str, Any] | None = None,
    ) -> None:
        def declare() -> spec.Queue.DeclareOk:
            ready = self._server.declare(name, arguments or {})
            return spec.Queue.DeclareOk(queue=name, message_count=ready, consumer_count=0)

        self._ask(declare, None, callback)

    def queue_bind(self, queue: str, exchange: str, routing_key: str, callback: Callable[[Any], None]) -> None:
        self._ask(lambda: None, spec.Queue.BindOk(), callback)

    def basic_qos(self, prefetch_count: int, global_qos: bool, callback: Callable[[Any], None]) -> None:
        self._ask(lambda: self._server.qos(prefetch_count), spec.Basic.QosOk(), callback)

    def basic_consume(
        self, queue: str, on_message: Callable[[Any, Any, Any, bytes], None], callback: Callable[[Any], None]
    ) -> None:
        self._on_message = on_message
        self._ask(lambda: None, spec.Basic.ConsumeOk(consumer_tag="c"), callback)
        self._send(lambda: self._server.consume(queue))

    def basic_publish(
        self, exchange: str, routing_key: str, body: bytes, properties: Any, mandatory: bool = False
    ) -> None:
        assert exchange == ""
        assert mandatory
        self._send(lambda: self._server.publish(routing_key, body, properties))

    def basic_ack(self, delivery_tag: int, multiple: bool = False) -> None:
        self._send(lambda: self._server.ack(delivery_tag, multiple=multiple))

    def basic_nack(self, delivery_tag: int, multiple: bool = False, requeue: bool = True) -> None:
        assert requeue
        self._send(lambda: self._server.nack(delivery_tag, multiple=multiple))

    def close(self) -> None:
        if not self.is_open:
            raise exceptions.ChannelWrongStateError("the channel is not open")
        self._send(lambda: self._server.close())
        self.is_open = False
        reason = exceptions.ChannelClosedByClient(200, "bye")
        self._wire.cable.to_server(lambda: self._wire.cable.to_client(lambda: self.gone(reason)))

    def gone(self, reason: BaseException) -> None:
        """Closed, by whomever."""
        if self._is_gone:
            return
        self._is_gone, self.is_open = True, False
        for callback in self._on_close:
            callback(self, reason)

    def on_confirm(self, tag: int, *, multiple: bool, refused: bool) -> None:
        """The broker's word on what was published."""
        if self.is_open:
            self._on_confirm(tag, not refused, multiple)

    def on_return(self, routing_key: str) -> None:
        """A message that found no queue."""
        if self.is_open:
            returned = spec.Basic.Return(reply_code=312, reply_text="NO_ROUTE", routing_key=routing_key)
            self._on_return(self, returned, spec.BasicProperties(), b"")

    def closed_by_broker(self, reason: BaseException) -> None:
        """The broker's word that this channel asked for something that is not there."""
        self.is_open = False
        self.gone(reason)

    def on_cancel(self) -> None:
        """The broker's word that the queue is gone."""
        if self.is_open:
            self._on_cancel(frame.Method(1, spec.Basic.Cancel(consumer_tag="c")))

    def on_message(self, tag: int, redelivered: bool, properties: Any, body: bytes) -> None:
        """A delivery."""
        if self.is_open:
            method = spec.Basic.Deliver(consumer_tag="c", delivery_tag=tag, redelivered=redelivered)
            self._on_message(self, method, properties, body)

    def _opened(self, on_open: Callable[[Any], None]) -> None:
        if not self._is_gone and self._wire.is_open:
            self.is_open = True
            on_open(self)

    def _send(self, call: Callable[[], None]) -> None:
        if not self._wire.is_open:
            raise exceptions.ConnectionWrongStateError("the connection is not open")
        if not self.is_open:
            raise exceptions.ChannelWrongStateError("the channel is not open")
        self._wire.cable.to_server(call)

    def _ask(self, act: Callable[[], Any], reply: Any, callback: Callable[[Any], None]) -> None:
        def answer() -> None:
            method = act() or reply
            self._wire.cable.to_client(lambda: self._answered(callback, method))

        self._send(answer)

    def _answered(self, callback: Callable[[Any], None], method: Any) -> None:
        if self.is_open:
            callback(frame.Method(1, method))
