"""celery: one task for each payment, acks_late, prefork with one process, psycopg. ``fill N`` sends the tasks."""

from __future__ import annotations

import sys

import psycopg
from celery import Celery
from celery.signals import worker_process_init
from kombu import Queue

from bench.corpus import order_id
from bench.peers.place import DATABASE_URL, KIND, PREFETCH, QUEUE, UPDATE_DBAPI, URL

app = Celery("bench", broker=URL)
app.conf.update(
    task_queues=[Queue(QUEUE, durable=True, queue_arguments={"x-queue-type": KIND})],
    task_default_queue=QUEUE,
    task_acks_late=True,
    worker_prefetch_multiplier=PREFETCH,
    worker_concurrency=1,
    # Quorum queues know no global prefetch.
    worker_detect_quorum_queues=True,
    task_ignore_result=True,
    broker_transport_options={"confirm_publish": True},
    worker_enable_remote_control=False,
    worker_hijack_root_logger=False,
)
connections: list[psycopg.Connection] = []


@worker_process_init.connect
def connect(**_: object) -> None:
    connections.append(psycopg.connect(DATABASE_URL, autocommit=True))


@app.task(name="apply")
def apply(payment: dict[str, str]) -> None:
    connections[0].execute(UPDATE_DBAPI, (payment["OrderId"],))


if __name__ == "__main__":
    with app.producer_pool.acquire(block=True) as producer:
        for number in range(int(sys.argv[2])):
            apply.apply_async(({"OrderId": order_id(number)},), producer=producer)
