"""What a run is made of, drawn from its seed: which queue, which processes, which limits, how much trouble."""

from __future__ import annotations

import random
from typing import Literal

import msgspec

Broker = Literal["sqlite", "rabbitmq"]


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """One deployment of the program, small enough that its limits are met."""

    broker: Broker
    together: bool
    ingests: int
    workers: int
    spool: bool
    shared_spool: bool
    orders: int
    span_s: float
    faults: int
    batch_size: int
    prefetch: int
    hold_s: float
    confirm_s: float
    lock_patience_s: float
    delivery_limit: int
    max_attempts: int
    max_in_flight: int
    nack_counts: bool
    retry_delays_ms: tuple[int, ...] = (200, 1_000, 4_000)

    @property
    def may_give_up(self) -> bool:
        """Whether the queue may lose patience with a message while workers die."""
        return self.delivery_limit < 10


def shape_of(rng: random.Random) -> Shape:
    """A deployment, as the seed has it."""
    broker: Broker = rng.choice(("sqlite", "rabbitmq"))
    batch_size = rng.choice((1, 3, 10, 100))
    return Shape(
        broker=broker,
        together=rng.random() < 0.3,
        ingests=rng.choice((1, 2)),
        workers=rng.choice((1, 2, 3)),
        spool=rng.random() < 0.4,
        shared_spool=rng.random() < 0.5,
        orders=rng.choice((2, 5, 9)),
        span_s=rng.choice((3.0, 12.0, 25.0)),
        faults=rng.choice((0, 3, 6, 10, 16)),
        batch_size=batch_size,
        prefetch=batch_size * rng.choice((1, 2, 5)),
        hold_s=rng.choice((0.5, 5.0, 60.0)),
        confirm_s=rng.choice((2.0, 8.0)),
        lock_patience_s=rng.choice((0.0, 0.5, 10.0)),
        delivery_limit=rng.choice((2, 20, 20)),
        max_attempts=rng.choice((3, 20, 20)),
        max_in_flight=rng.choice((2, 2_000)),
        nack_counts=rng.random() < 0.5,
    )
