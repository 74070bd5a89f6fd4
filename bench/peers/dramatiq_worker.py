"""dramatiq: an actor for each payment, one process with its eight threads, psycopg. ``fill N`` sends the messages."""

from __future__ import annotations

import sys
import threading

import dramatiq
import psycopg
from dramatiq.brokers.rabbitmq import RabbitmqBroker

from bench.corpus import order_id
from bench.peers.place import DATABASE_URL, KIND, QUEUE, UPDATE_DBAPI, URL


class Declaring(RabbitmqBroker):
    """Its queues are classic ones; this makes them of the kind that is asked for."""

    def _build_queue_arguments(self, queue_name: str) -> dict[str, object]:
        return {**super()._build_queue_arguments(queue_name), "x-queue-type": KIND}


broker = Declaring(url=URL, confirm_delivery=True)
dramatiq.set_broker(broker)
local = threading.local()


@dramatiq.actor(queue_name=QUEUE, max_retries=0)
def apply(payment: dict[str, str]) -> None:
    if not hasattr(local, "connection"):
        local.connection = psycopg.connect(DATABASE_URL, autocommit=True)
    local.connection.execute(UPDATE_DBAPI, (payment["OrderId"],))


if __name__ == "__main__":
    for number in range(int(sys.argv[2])):
        apply.send({"OrderId": order_id(number)})
