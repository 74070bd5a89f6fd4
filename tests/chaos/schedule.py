"""Which fault strikes when: a pure function of the seed."""

from __future__ import annotations

import random
from typing import Literal

import msgspec

Scenario = Literal["single", "cluster"]

FIRST_S = 3.0
LAST_S = 3.0
GAP_S = (2.5, 6.0)
JUMPS_MS = (5_000, 60_000, 3_600_000, 86_400_000)

WEIGHTS: dict[str, int] = {
    "kill serve": 4,
    "kill worker": 4,
    "freeze serve": 3,
    "freeze worker": 3,
    "cut serve-broker": 2,
    "stall serve-broker": 2,
    "refuse serve-broker": 2,
    "cut worker-broker": 2,
    "stall worker-broker": 2,
    "refuse worker-broker": 2,
    "cut database": 2,
    "stall database": 2,
    "refuse database": 2,
    "restart broker": 1,
    "kill broker": 2,
    "freeze broker": 2,
    "restart database": 2,
    "kill database": 2,
    "freeze database": 2,
    "delete queue": 2,
    "fill spool disk": 2,
    "jump clock": 3,
    "roll serve": 2,
    "roll worker": 2,
    "kill relay": 2,
    "freeze relay": 2,
    "roll relay": 1,
    "cut subscriber": 1,
    "stall subscriber": 1,
    "refuse subscriber": 1,
}
CLUSTER_WEIGHTS: dict[str, int] = {
    "kill node": 6,
    "restart node": 2,
    "kill serve": 2,
    "kill worker": 2,
    "cut serve-broker": 1,
    "cut worker-broker": 1,
    "kill database": 1,
    "roll serve": 1,
    "kill relay": 1,
}
TAKES_HOLD = ("freeze", "stall", "refuse", "fill", "kill node")


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """``at_s`` is counted from the beginning of the load. ``which`` chooses among several of a kind.

    ``hold_s`` is how long it lasts, and 0 for what happens in a moment; ``jump_ms`` is for the clock.
    """

    at_s: float
    kind: str
    which: int
    hold_s: float = 0.0
    jump_ms: int = 0


def schedule(seed: int, seconds: float, scenario: Scenario = "single") -> list[Fault]:
    """The faults of a run of this length. Every kind comes once before any comes twice, as long as time is left."""
    rng = random.Random(seed)
    weights = WEIGHTS if scenario == "single" else CLUSTER_WEIGHTS
    faults: list[Fault] = []
    at_s = FIRST_S
    fresh = rng.sample(sorted(weights), len(weights))
    while at_s < seconds - LAST_S:
        kind = fresh.pop() if fresh else rng.choices(list(weights), list(weights.values()))[0]
        faults.append(
            Fault(
                at_s=round(at_s, 3),
                kind=kind,
                which=rng.randrange(60),
                hold_s=round(rng.uniform(1.0, 7.0), 3) if kind.startswith(TAKES_HOLD) else 0.0,
                jump_ms=rng.choice(JUMPS_MS) * rng.choice((-1, 1)) if kind == "jump clock" else 0,
            )
        )
        at_s += rng.uniform(*GAP_S)
    return faults
