"""Rounds in which every server has its turn, so that what else the machine does falls on all of them alike."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from statistics import median
from typing import NamedTuple

from bench.rpc.contender import MODES, NAMES, PYTHON, ROOT, Mode, Name, calls_a_request, questions
from bench.rpc.process import BenchError, Server, environment, running

CONNECTIONS = 32
WARM_UP_S = 1.5
# What starting, connecting and stopping may cost beside a turn itself.
SPARE_S = 15.0


class Plan(NamedTuple):
    """How long it is measured."""

    rounds: int
    seconds: float

    @property
    def turns(self) -> int:
        return self.rounds * len(MODES) * len(NAMES)

    @property
    def lifetime_s(self) -> float:
        """After this the servers end by themselves."""
        return 120 + self.turns * (self.seconds + 5)


FULL = Plan(rounds=5, seconds=4.0)
QUICK = Plan(rounds=3, seconds=2.0)


@dataclass
class Turn:
    """What one server did in one turn."""

    calls_s: float
    requests_s: float
    cpu_us_a_call: float
    server_busy: float
    generator_busy: float
    p50_ms: float
    p99_ms: float


@dataclass
class Outcome:
    """All turns of one server in one mode, and the most memory that it had needed by then."""

    name: Name
    mode: Mode
    calls_a_request: int
    turns: list[Turn] = field(default_factory=list)
    peak_mib: float = 0.0

    def figure(self, name: str) -> Figure:
        values = [float(getattr(turn, name)) for turn in self.turns]
        return Figure(median(values), min(values), max(values))


class Figure(NamedTuple):
    """One number over all rounds."""

    median: float
    least: float
    most: float


def measure(plan: Plan, node: str) -> list[Outcome]:
    """Starts all servers, gives each its turn in every round, and stops them. Raises BenchError."""
    outcomes = {(name, mode): Outcome(name, mode, calls_a_request(name, mode)) for mode in MODES for name in NAMES}
    with ExitStack() as stack:
        servers = [stack.enter_context(running(name, node, plan.lifetime_s)) for name in NAMES]
        for mode in MODES:
            for server in servers:
                _turn(server, mode, WARM_UP_S)
        for number in range(plan.rounds):
            for mode in MODES:
                # Another one begins each time, so that nobody always follows the same neighbour.
                for server in _rotated(servers, number):
                    outcome = outcomes[server.name, mode]
                    turn = _turn(server, mode, plan.seconds)
                    outcome.turns.append(turn)
                    outcome.peak_mib = server.peak_kib() / 1024
                    _say(f"round {number + 1}/{plan.rounds} {mode} {server.name}: {turn.calls_s:.0f} calls/s")
    return list(outcomes.values())


def _rotated(servers: Sequence[Server], by: int) -> list[Server]:
    at = by % len(servers)
    return [*servers[at:], *servers[:at]]


def _turn(server: Server, mode: Mode, seconds: float) -> Turn:
    asked = questions(server.name, mode)
    plan = {
        "port": server.port,
        "connections": CONNECTIONS,
        "seconds": seconds,
        "paths": [question.path for question in asked],
        "answers": [question.answer for question in asked],
    }
    before_s = server.cpu_s()
    done = _generate(json.dumps(plan), seconds)
    cpu_s = server.cpu_s() - before_s
    calls = calls_a_request(server.name, mode)
    return Turn(
        calls_s=done["requests"] * calls / done["seconds"],
        requests_s=done["requests"] / done["seconds"],
        cpu_us_a_call=cpu_s * 1e6 / (done["all_requests"] * calls),
        server_busy=cpu_s / done["seconds"],
        generator_busy=done["generator_cpu_s"] / done["seconds"],
        p50_ms=done["p50_ms"],
        p99_ms=done["p99_ms"],
    )


def _generate(plan: str, seconds: float) -> dict[str, float]:
    done = subprocess.run(
        [str(PYTHON), "-m", "bench.rpc.generator"],
        cwd=ROOT,
        env=environment(),
        input=plan,
        capture_output=True,
        text=True,
        timeout=seconds + SPARE_S,
        check=False,
    )
    if done.returncode != 0:
        raise BenchError(done.stderr.strip()[-1000:])
    counted: dict[str, float] = json.loads(done.stdout)
    return counted


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
