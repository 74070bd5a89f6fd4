"""What was measured, as a table for people and as a document."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from typing import Any

from bench.contenders import FRAMEWORKS
from bench.measuring import Turns

COLUMNS = (
    ("rate", "per s", "{:.0f}"),
    ("applied_rate", "applied/s", "{:.0f}"),
    ("p50_ms", "p50 ms", "{:.1f}"),
    ("p99_ms", "p99 ms", "{:.1f}"),
    ("committed_p50_ms", "commit p50", "{:.1f}"),
    ("committed_p99_ms", "commit p99", "{:.1f}"),
    ("cpu_us_server", "CPU us server", "{:.0f}"),
    ("cpu_us_worker", "worker", "{:.0f}"),
    ("cpu_us_broker", "broker", "{:.0f}"),
    ("cpu_us_postgres", "postgres", "{:.0f}"),
    ("peak_mib", "peak MiB", "{:.0f}"),
    ("ready_s", "ready s", "{:.2f}"),
    ("help_s", "help s", "{:.2f}"),
)


def figures(turns: Turns) -> dict[str, dict[str, dict[str, float]]]:
    """Median, least and most of every figure of every row."""
    return {
        row: {
            name: {
                "median": median(turn[name] for turn in measured),
                "least": min(turn[name] for turn in measured),
                "most": max(turn[name] for turn in measured),
            }
            for name in measured[0]
        }
        for row, measured in turns.items()
    }


def ratios(found: Mapping[str, Mapping[str, Mapping[str, float]]]) -> dict[str, float]:
    """Ours to the others, by the medians; over 1 is faster, and for latencies slower."""

    def one(row: str, other: str, name: str = "rate") -> float | None:
        if row not in found or other not in found:
            return None
        return found[row][name]["median"] / found[other][name]["median"]

    told = {
        f"ingest ours / {who}": one("ingest quorum ours", f"ingest quorum {who}") for who in _peers(found, "ingest")
    }
    told["ingest ours / limit of confirms"] = one("ingest quorum ours", "limit quorum confirms")
    told |= {f"drain ours / {who}": one("drain quorum ours", f"drain quorum {who}") for who in _peers(found, "drain")}
    best = [found[f"drain quorum {who}"]["rate"]["median"] for who in FRAMEWORKS if f"drain quorum {who}" in found]
    if best and "drain quorum ours" in found:
        told["drain ours / best Python framework"] = found["drain quorum ours"]["rate"]["median"] / max(best)
    told["drain ours / limit of the database"] = one("drain quorum ours", "limit store")
    for name in ("p50_ms", "p99_ms", "committed_p50_ms", "committed_p99_ms"):
        told[f"latency {name} ours / bare"] = one("latency quorum ours", "latency quorum bare", name)
    return {name: round(value, 2) for name, value in told.items() if value is not None}


def _peers(found: Mapping[str, Any], what: str) -> list[str]:
    return [row.rpartition(" ")[2] for row in found if row.startswith(f"{what} quorum") and not row.endswith(" ours")]


def table(turns: Turns) -> str:
    """One line for each row; rates with their least and most."""
    found = figures(turns)
    lines = [["", *(title for _, title, _ in COLUMNS)]]
    for row, measured in found.items():
        lines.append([row, *(_cell(measured.get(name), pattern, name) for name, _, pattern in COLUMNS)])
    widths = [max(len(line[place]) for line in lines) for place in range(len(lines[0]))]
    text = "\n".join(
        "  ".join(
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )
    return text + "\n\n" + "\n".join(f"{name}: {value:.2f}" for name, value in ratios(found).items())


def _cell(figure: Mapping[str, float] | None, pattern: str, name: str) -> str:
    if figure is None:
        return ""
    said = pattern.format(figure["median"])
    if name in ("rate", "applied_rate"):
        said += f" ({pattern.format(figure['least'])}-{pattern.format(figure['most'])})"
    return said
