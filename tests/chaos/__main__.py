"""``python -m tests.chaos --seed 7 --minutes 5 --rate 1000``: what ``make chaos`` calls."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

import uvloop

from tests.chaos.report import lines
from tests.chaos.run import Plan, run
from tests.services.server import ServiceError


def main(arguments: list[str]) -> int:
    """Run, report, and return 0 only if everything held; the logs are kept when it did not."""
    plan, keep = _asked(arguments)
    folder = Path(tempfile.mkdtemp(prefix="oplata-chaos-"))
    say(f"seed {plan.seed}, {plan.seconds:g} s at {plan.rate:g} callbacks/s; logs in {folder}")
    try:
        outcome = uvloop.run(run(plan, folder, say))
    except ServiceError as error:
        say(f"{error}")
        return 1
    for line in lines(outcome) if outcome.good else [f"The logs are in {folder}.", *lines(outcome)]:
        say(line)
    if outcome.good and not keep:
        shutil.rmtree(folder, ignore_errors=True)
    return 0 if outcome.good else 1


def say(text: str) -> None:
    """One line, at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _asked(arguments: list[str]) -> tuple[Plan, bool]:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="Break everything, lose nothing.")
    parser.add_argument("--seed", type=int, default=7, help="what the faults and the callbacks are drawn from")
    parser.add_argument("--minutes", type=float, default=5.0, help="how long the load and the faults last")
    parser.add_argument("--rate", type=float, default=1000.0, help="callbacks a second, whatever the answers are")
    parser.add_argument("--scenario", choices=("single", "cluster"), default="single", help="one broker, or three")
    parser.add_argument("--keep", action="store_true", help="keep the logs also when nothing went wrong")
    given = parser.parse_args(arguments)
    plan = Plan(seed=given.seed, seconds=given.minutes * 60, rate=given.rate, scenario=given.scenario)
    return plan, given.keep


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
