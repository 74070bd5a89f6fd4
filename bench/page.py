"""``python -m bench.page`` writes what was measured last into docs/performance.md, between its marks."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.stage import ROOT

PAGE = ROOT / "docs" / "performance.md"
RESULTS = ROOT / "bench" / "results"
_PART = re.compile(r"(<!-- measured: (\w+) -->\n).*?(<!-- to here -->)", re.DOTALL)

_INGEST = {
    "ours": "**`oplata serve`**",
    "node_usual": "the usual Node endpoint: a connection a request, no confirm, no token",
    "node_tuned": "its tuned form: one confirm channel, token checked",
    "aio_pika": "Starlette + aio-pika, no token",
    "bare": "uvicorn + a bare client, no token",
    "asgi_only": "uvicorn alone, without a broker",
}
_DRAIN = {
    "drain quorum ours": "**`oplata worker`, full effect**",
    "drain quorum node_usual": "the usual Node worker, prefetch 1",
    "drain quorum node_tuned": "its tuned form, prefetch 100",
    "drain quorum aio_pika": "aio-pika by hand",
    "drain quorum celery": "celery, one prefork process",
    "drain quorum dramatiq": "dramatiq, eight threads",
    "drain quorum taskiq": "taskiq",
    "drain quorum faststream": "FastStream",
    "drain quorum bare": "a bare client in batches, full effect, nothing verified",
    "drain classic ours": "`oplata worker` from a classic queue",
}
_LATENCY = {
    "latency quorum ours": "**`oplata serve` and `worker`, full effect**",
    "latency quorum node_usual": "the usual Node design",
    "latency quorum node_tuned": "its tuned form",
    "latency quorum bare": "the bare client, full effect",
    "embedded ours": "`oplata up`, SQLite",
}
_LIMITS = {
    "limit quorum confirms": "confirms of one quorum queue, 1000 on their way",
    "limit quorum consume": "consuming from it, acks of 500",
    "limit classic confirms": "the same with a classic queue",
    "limit classic consume": "consuming from that",
    "limit store": "the full effect in PostgreSQL, batches of 500, alone",
}
_AIMS = {
    "ingest ours / node_usual": "20",
    "ingest ours / node_tuned": "1.7",
    "ingest ours / aio_pika": "1.8",
    "ingest ours / bare": "0.85",
    "drain ours / node_usual": "15",
    "drain ours / node_tuned": "3",
    "drain ours / best Python framework": "6",
    "drain ours / limit of the database": "0.5",
    "latency p50_ms ours / bare": "at most 1.3",
    "latency p99_ms ours / bare": "at most 1.3",
    "latency committed_p50_ms ours / bare": "at most 1.3",
    "latency committed_p99_ms ours / bare": "at most 1.3",
}

Figures = Mapping[str, Mapping[str, Mapping[str, float]]]


def callbacks(document: Mapping[str, Any]) -> str:
    """The figures of ``make bench``."""
    found: Figures = document["figures"]
    parts = [
        *(_ingest(found, kind) for kind in ("quorum", "classic")),
        _table(
            (
                "worker, out of a full queue into PostgreSQL",
                "messages/s, median (least-most)",
                "processor time us: worker / broker / PostgreSQL",
                "peak MiB",
            ),
            (
                (
                    title,
                    _spread(found[row]["rate"]),
                    _cpu(found[row], "worker", "broker", "postgres"),
                    _peak(found[row]),
                )
                for row, title in _DRAIN.items()
            ),
        ),
        _table(
            ("at 100 callbacks a second", "answered p50 / p99 ms", "committed p50 / p99 ms"),
            (
                (
                    title,
                    _pair(found[row], "p50_ms", "p99_ms"),
                    _pair(found[row], "committed_p50_ms", "committed_p99_ms"),
                )
                for row, title in _LATENCY.items()
            ),
        ),
        _table(
            ("`oplata up` on SQLite, one process", "5 000 were aimed at"),
            (
                ("accepted a second", _spread(found["embedded ours"]["rate"])),
                ("applied a second, by the time that the last one is", _spread(found["embedded ours"]["applied_rate"])),
                ("processor time us", _cpu(found["embedded ours"], "server")),
                ("peak MiB", _peak(found["embedded ours"])),
            ),
        ),
        _table(("limit", "per second"), ((title, _spread(found[row]["rate"])) for row, title in _LIMITS.items())),
        _table(
            ("ours in relation to", "ratio", "aimed at"),
            ((name, f"{ratio:.2f}", _AIMS.get(name, "")) for name, ratio in document["ours_to"].items()),
        ),
        _table(
            ("start", "seconds, median (least-most)", "aimed at"),
            (
                ("`oplata --help`", _spread(found["start"]["help_s"], "{:.3f}"), "0.2"),
                ("`oplata serve` listens", _spread(found["ingest quorum ours"]["ready_s"], "{:.2f}"), "1"),
            ),
        ),
    ]
    return "\n\n".join([*parts, _circumstances(document)])


def growth(document: Mapping[str, Any]) -> str:
    """The figures of ``python -m bench.growth``."""
    empty, full = document["median_ms"]["empty"], document["median_ms"]["full"]
    page, widths = document["page_by_keyset"], document["mib_per_million"]
    rows = {
        "news": "a batch of 500 news",
        "repeats": "a batch of 500 repeats",
        "list": "a page of 100 orders, with their payments, through `Orders.list`",
    }
    told = [(title, f"{empty[name]} ms", f"{full[name]} ms") for name, title in rows.items()]
    told.append((f"the page itself, by EXPLAIN ({page['node']})", "", f"{page['ms']} ms"))
    wide = sorted((each for each in widths.items() if each[0] != "whole"), key=lambda each: -each[1]["whole"])
    return "\n\n".join(
        (
            _table((f"{_grouped(document['events'])} events on PostgreSQL", "empty", "grown"), told),
            _table(
                ("MiB a million", "rows", "indexes", "whole"),
                [
                    *((f"`{name}`", f"{of['rows']}", f"{of['indexes']}", f"{of['whole']}") for name, of in wide),
                    ("together", "", "", f"{widths['whole']}"),
                ],
            ),
        )
    )


def backlog(document: Mapping[str, Any]) -> str:
    """The figures of ``python -m bench.backlog``."""
    parts = document["parts"]
    return _table(
        (f"{_grouped(document['callbacks'])} callbacks waited for one worker", "applied a second", "memory, MiB"),
        (
            *(
                (f"tenth {place}", _grouped(part["rate"]), f"{part['rss_mib']}")
                for place, part in enumerate(parts, 1)
                if place in (1, 2, 5, 9, 10)
            ),
            ("at its peak", "", f"{document['peak_mib']}"),
        ),
    )


PARTS: dict[str, Callable[[Mapping[str, Any]], str]] = {"callbacks": callbacks, "growth": growth, "backlog": backlog}


def written(page: str, results: Path = RESULTS) -> str:
    """The page with each part as it was measured."""

    def part(found: re.Match[str]) -> str:
        document = json.loads((results / f"{found[2]}.json").read_text(encoding="utf-8"))
        return f"{found[1]}{PARTS[found[2]](document)}\n{found[3]}"

    return _PART.sub(part, page)


def _ingest(found: Figures, kind: str) -> str:
    return _table(
        (
            f"ingest, 64 connections, {kind} queue",
            "req/s, median (least-most)",
            "p50 / p99 ms",
            "processor time us: server / broker",
            "peak MiB",
        ),
        (
            (title, _spread(row["rate"]), _pair(row, "p50_ms", "p99_ms"), _cpu(row, "server", "broker"), _peak(row))
            for title, row in ((title, found.get(f"ingest {kind} {who}")) for who, title in _INGEST.items())
            if row is not None
        ),
    )


def _circumstances(document: Mapping[str, Any]) -> str:
    machine, versions = document["machine"], document["versions"]
    return (
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_mib']} MiB, {machine['system']}; load "
        f"{document['load_before'][0]} before and {document['load_after'][0]} after, which the measurement makes "
        f"itself in part; begun {document['begun'][:16].replace('T', ' ')} UTC.\n"
        + ", ".join(f"{name} {version}" for name, version in versions.items() if name != "oplata")
        + ".\nEvery turn is in `bench/results/callbacks.json`."
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    marked = (f"| {' | '.join(line)} |" for line in lines)
    return "\n".join(each.replace("| --- ", "|---").replace("|--- |", "|---|") for each in marked)


def _grouped(number: float) -> str:
    return f"{number:,.0f}".replace(",", " ")


def _spread(figure: Mapping[str, float], pattern: str | None = None) -> str:
    told = {name: _grouped(value) if pattern is None else pattern.format(value) for name, value in figure.items()}
    return f"{told['median']} ({told['least']}-{told['most']})"


def _pair(row: Mapping[str, Mapping[str, float]], one: str, other: str) -> str:
    return f"{row[one]['median']:.1f} / {row[other]['median']:.1f}"


def _cpu(row: Mapping[str, Mapping[str, float]], *who: str) -> str:
    return " / ".join(f"{row[f'cpu_us_{each}']['median']:.0f}" for each in who)


def _peak(row: Mapping[str, Mapping[str, float]]) -> str:
    return f"{row['peak_mib']['median']:.0f}"


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    sys.stdout.write(f"{PAGE} says what was measured last.\n")
