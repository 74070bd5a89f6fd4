"""``python -m bench.rpc`` measures all three and prints a table; ``make bench-rpc`` installs what it takes first."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.rpc.contender import BATCH, MODES, ROOT, missing
from bench.rpc.machine import load_averages, machine, versions
from bench.rpc.measuring import CONNECTIONS, FULL, QUICK, Outcome, Plan, measure
from bench.rpc.process import BenchError
from bench.rpc.table import ratios, table

RESULTS = ROOT / "bench" / "results"


def main() -> int:
    """1 if something is not installed, a server fails, or an answer is wrong."""
    parser = argparse.ArgumentParser(prog="python -m bench.rpc", description=__doc__)
    quick = os.environ.get("BENCH_QUICK", "") not in ("", "0")
    parser.add_argument("--quick", action="store_true", default=quick, help="fewer and shorter rounds; BENCH_QUICK=1")
    parser.add_argument(
        "--out", type=Path, help="where the figures go; a file of its own in bench/results if not given"
    )
    given = parser.parse_args()
    node = shutil.which("node")
    if (sentence := missing(node)) is not None or node is None:
        sys.stderr.write(f"{sentence}\n")
        return 1
    plan = QUICK if given.quick else FULL
    begun, load_before = datetime.datetime.now(datetime.UTC), load_averages()
    try:
        outcomes = measure(plan, node)
    except BenchError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    figures = _document(plan, outcomes, node, begun, load_before)
    out = given.out or RESULTS / f"rpc-{begun:%Y%m%dT%H%M%SZ}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    sys.stdout.write(_text(figures, outcomes, out))
    return 0


def _document(
    plan: Plan, outcomes: Sequence[Outcome], node: str, begun: datetime.datetime, load_before: list[float]
) -> dict[str, Any]:
    return {
        "begun": begun.isoformat(timespec="seconds"),
        "rounds": plan.rounds,
        "seconds": plan.seconds,
        "connections": CONNECTIONS,
        "batch": BATCH,
        "machine": machine(),
        "load_before": load_before,
        "load_after": load_averages(),
        "versions": versions(node),
        "outcomes": [_entry(outcome) for outcome in outcomes],
        "ours_to": {mode: ratios(outcomes, mode) for mode in MODES},
    }


def _entry(outcome: Outcome) -> dict[str, Any]:
    calls, cpu = outcome.figure("calls_s"), outcome.figure("cpu_us_a_call")
    medians = {"calls_s": calls._asdict(), "cpu_us_a_call": cpu._asdict()}
    return {**asdict(outcome), **medians}


def _text(figures: dict[str, Any], outcomes: Sequence[Outcome], out: Path) -> str:
    hardware = figures["machine"]
    told = ", ".join(f"{name} {version}" for name, version in figures["versions"].items())
    return (
        f"\n{hardware['processor']}, {hardware['cores']} cores, {hardware['memory_mib']} MiB, {hardware['system']}; "
        f"load {figures['load_before'][0]} before, {figures['load_after'][0]} after\n{told}\n"
        f"{figures['rounds']} rounds of {figures['seconds']:.0f} s, {CONNECTIONS} connections; one process each; "
        f"every answer was compared.\nFastAPI knows no batches: its ten calls are ten requests on a kept connection."
        f"\n\n{table(outcomes)}\n\nWritten to {out}\n"
    )


if __name__ == "__main__":
    sys.exit(main())
