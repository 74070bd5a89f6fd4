"""What the event loop of our processes does to a connection that plain asyncio would not."""

from __future__ import annotations

import asyncio

import pytest
import uvloop

from oplata.queue.envelope import Envelope
from oplata.queue.rabbitmq import RabbitQueue
from tests.contract.amqp import RUNGS_MS, TIMEOUT_S, collect

LEFT_S = 15.0


async def survive(url: str, name: str) -> list[bytes]:
    """Take away the watch over each open socket, as uvloop does when one was reset; then publish, receive and ack."""
    queue = RabbitQueue(url, name, retry_delays_ms=RUNGS_MS)
    await queue.start()
    try:
        consumer = queue.consumer(prefetch=10)
        await queue.publisher().publish(Envelope(body=b"before"), timeout_s=TIMEOUT_S)
        (held,) = await consumer.receive(limit=1, timeout_s=TIMEOUT_S)
        for link in [queue._publishing.link, queue._consuming.link]:
            assert link is not None
            blind(link.wire)
        await consumer.ack([held])
        await queue.publisher().publish(Envelope(body=b"after"), timeout_s=LEFT_S)
        return sorted(each.envelope.body for each in await collect(consumer, 2, within_s=LEFT_S))
    finally:
        await queue.stop()


def blind(wire: object) -> None:
    """The next write of this connection fails as a write over uvloop's closed handle does."""
    emit = wire._adapter_emit_data  # type: ignore[attr-defined]  # pika's, untyped.

    def fail_once(data: bytes) -> None:
        wire._adapter_emit_data = emit  # type: ignore[attr-defined]  # As above.
        raise RuntimeError("unable to perform operation on <UVPoll closed=True>; the handler is closed")

    wire._adapter_emit_data = fail_once  # type: ignore[attr-defined]  # As above.


@pytest.mark.timeout(90)
def test_a_socket_that_uvloop_gave_up_is_replaced(amqp_url: str, queue_name: str) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        found = runner.run(asyncio.wait_for(survive(amqp_url, queue_name), 3 * LEFT_S))

    # The ack was lost with its connection, so the first message comes again.
    assert found == [b"after", b"before"]
