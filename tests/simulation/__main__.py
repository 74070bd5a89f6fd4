# ruff: noqa: T201  This is a command, and prints what it finds.
"""Run a range of seeds: ``python -m tests.simulation --seeds 1000-2000 [--processes 2]``, or one, with its trace."""

from __future__ import annotations

import argparse
import multiprocessing
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.simulation.mutants import MUTANTS
from tests.simulation.run import Result, simulate

_REPORT_EVERY_S = 5.0
_MOST_SHOWN = 10
_SEEDS_PER_PROCESS = 200
"""A worker is replaced after so many, so that a night's run does not grow."""


def seeds_of(text: str) -> range:
    """``1000-2000``, both among them, or a single seed."""
    first, _, last = text.partition("-")
    seeds = range(int(first), int(last or first) + 1)
    if not seeds:
        raise argparse.ArgumentTypeError("the second seed is before the first")
    return seeds


def commit() -> str:
    """The commit of this checkout, and whether it was changed since."""
    root = Path(__file__).parent
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--abbrev=12", "--dirty"],
            cwd=root,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return described.stdout.strip()


def report(result: Result, *, mutant: str | None = None, lines: int = 60) -> str:
    """What a person needs to find the cause and to see it again."""
    command = f"python -m tests.simulation --seeds {result.seed} --trace" + (f" --mutant {mutant}" if mutant else "")
    return "\n".join(
        (
            *result.tail[-lines:],
            "",
            f"FAILED: {result.failure}",
            f"seed {result.seed}, commit {commit()}, step {result.steps}, second {result.simulated_s:.3f}",
            f"{result.shape}",
            f"replay: {command}",
            "",
        )
    )


def run(seeds: range, processes: int) -> Iterator[Result]:
    """Results as they come, in order."""
    if processes == 1:
        yield from map(simulate, seeds)
        return
    context = multiprocessing.get_context("spawn")
    with context.Pool(processes, maxtasksperchild=_SEEDS_PER_PROCESS) as pool:
        yield from pool.imap_unordered(simulate, seeds, chunksize=1)


def watch(results: Iterable[Result], total: int) -> tuple[int, int]:
    """Show the progress and the first failures. Returns how many ran and how many failed."""
    began_s = shown_s = time.monotonic()
    done = failures = 0
    is_terminal = sys.stderr.isatty()
    for result in results:
        done += 1
        if result.failure is not None:
            failures += 1
            if failures <= _MOST_SHOWN:
                print(report(result), flush=True)
        now_s = time.monotonic()
        if is_terminal or now_s - shown_s >= _REPORT_EVERY_S or done == total:
            shown_s = now_s
            _show(done, total, failures, now_s - began_s, is_terminal)
    return done, failures


def _show(done: int, total: int, failures: int, elapsed_s: float, is_terminal: bool) -> None:
    rate = done / max(elapsed_s, 1e-9)
    left = f"{rate:.1f} seeds/s, {(total - done) / rate:.0f} s left, failures {failures}"
    if is_terminal:
        filled = 30 * done // total
        end = "\n" if done == total else ""
        print(f"\r[{'#' * filled}{'.' * (30 - filled)}] {done}/{total} {left} ", end=end, file=sys.stderr, flush=True)
    else:
        print(f"{done}/{total} {left}", file=sys.stderr, flush=True)


def main() -> int:
    """The command. Ends with 1 when a seed failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=seeds_of, required=True, help="such as 1000-2000, or one seed")
    parser.add_argument("--processes", type=int, default=1, help="how many seeds run at a time (default 1)")
    parser.add_argument("--trace", action="store_true", help="print each line of what happens")
    parser.add_argument("--mutant", choices=sorted(MUTANTS), help="break the program in this way first")
    given = parser.parse_args()
    if given.trace or given.mutant:
        return _one_by_one(given.seeds, given.trace, given.mutant)
    done, failures = watch(run(given.seeds, max(1, given.processes)), len(given.seeds))
    print(f"seeds {done}, failures {failures}")
    return 1 if failures else 0


def _one_by_one(seeds: range, trace: bool, mutant: str | None) -> int:
    failures = 0
    for seed in seeds:
        if mutant is None:
            result = simulate(seed, verbose=trace)
        else:
            with MUTANTS[mutant].applied():
                result = simulate(seed, verbose=trace)
        if result.failure is not None:
            failures += 1
            print(report(result, mutant=mutant, lines=0 if trace else 60), flush=True)
    print(f"seeds {len(seeds)}, failures {failures}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
