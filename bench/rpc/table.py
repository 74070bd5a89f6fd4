"""The outcome as a table for people."""

from __future__ import annotations

from collections.abc import Sequence

from bench.rpc.contender import MODES, TITLES, Mode, Name
from bench.rpc.measuring import Figure, Outcome

HEADINGS = ("", "calls/s", "least-most", "CPU us/call", "least-most", "busy", "p50 ms", "p99 ms", "peak MiB")
MODE_TITLES: dict[Mode, str] = {"single": "One call a request", "batch": "Ten calls a request"}


def table(outcomes: Sequence[Outcome]) -> str:
    """One block for each mode, with ours in relation to the others below it."""
    parts = []
    for mode in MODES:
        rows = [HEADINGS, *(_row(outcome) for outcome in outcomes if outcome.mode == mode)]
        parts.append("\n".join([MODE_TITLES[mode], _lines(rows), *_relations(outcomes, mode)]))
    return "\n\n".join(parts)


def ratios(outcomes: Sequence[Outcome], mode: Mode) -> dict[str, dict[str, float]]:
    """Ours to each other one: calls per second, and calls per second of processor time."""
    by_name: dict[Name, Outcome] = {outcome.name: outcome for outcome in outcomes if outcome.mode == mode}
    ours = by_name.pop("ours")
    return {
        name: {
            "calls_s": ours.figure("calls_s").median / other.figure("calls_s").median,
            "calls_a_cpu_s": other.figure("cpu_us_a_call").median / ours.figure("cpu_us_a_call").median,
        }
        for name, other in by_name.items()
    }


def _row(outcome: Outcome) -> tuple[str, ...]:
    calls, cpu = outcome.figure("calls_s"), outcome.figure("cpu_us_a_call")
    remark = " (ten requests)" if outcome.mode == "batch" and outcome.calls_a_request == 1 else ""
    return (
        TITLES[outcome.name] + remark,
        f"{calls.median:.0f}",
        _span(calls),
        f"{cpu.median:.0f}",
        _span(cpu),
        f"{outcome.figure('server_busy').median:.0%}",
        f"{outcome.figure('p50_ms').median:.1f}",
        f"{outcome.figure('p99_ms').median:.1f}",
        f"{outcome.peak_mib:.0f}",
    )


def _span(figure: Figure) -> str:
    return f"{figure.least:.0f}-{figure.most:.0f}"


def _lines(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    return "\n".join(
        "  ".join(cell.ljust(width) if at == 0 else cell.rjust(width) for at, (cell, width) in enumerate(pairs))
        for pairs in (list(zip(row, widths, strict=True)) for row in rows)
    )


def _relations(outcomes: Sequence[Outcome], mode: Mode) -> list[str]:
    return [
        f"ours / {TITLES[name]}: {ratio['calls_s']:.2f} by calls/s, {ratio['calls_a_cpu_s']:.2f} by processor time"
        for name, ratio in ratios(outcomes, mode).items()
        if name in TITLES
    ]
