"""``python -m bench`` measures everything beside everybody; ``make bench`` installs what it takes."""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench.contenders import NODE_FOLDER
from bench.measuring import FULL, QUICK, Turns, drain, embedded, ingest, latency, limits
from bench.report import figures, ratios, table
from bench.rpc.machine import load_averages, machine
from bench.stage import BENCH_PYTHON, PYTHON, ROOT, BenchError, say, stage

RESULTS = ROOT / "bench" / "results"
PARTS = {"ingest": ingest, "latency": latency, "drain": drain, "embedded": embedded, "limits": limits}
PACKAGES = ("uvicorn", "uvloop", "aio-pika", "celery", "dramatiq", "taskiq", "faststream", "asyncpg", "psycopg")
_ASK = "import importlib.metadata as m, json, sys; print(json.dumps({name: m.version(name) for name in sys.argv[1:]}))"


def main() -> int:
    """1 if something is not installed, or a contender fails."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    quick = os.environ.get("BENCH_QUICK", "") not in ("", "0")
    parser.add_argument("--quick", action="store_true", default=quick, help="one short round; BENCH_QUICK=1")
    parser.add_argument("--only", choices=PARTS, action="append", help="only these parts")
    parser.add_argument("--out", type=Path, help="where the figures go; a new file in bench/results if not given")
    given = parser.parse_args()
    if not BENCH_PYTHON.exists() or not (NODE_FOLDER / "node_modules").exists() or shutil.which("node") is None:
        sys.stderr.write("The peers are not installed yet: run `make bench`, which needs Node and npm.\n")
        return 1
    plan = QUICK if given.quick else FULL
    begun, load_before = datetime.datetime.now(datetime.UTC), load_averages()
    turns: Turns = {}
    try:
        with stage() as services:
            if "limits" in (given.only or PARTS) and "drain" not in (given.only or PARTS):
                services.database("bench_template", plan.drained)
            for name, part in PARTS.items():
                if name in (given.only or PARTS):
                    part(services, plan, turns)
    except (BenchError, subprocess.SubprocessError, TimeoutError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    turns["start"] = [_started() for _ in range(plan.rounds)]
    found = figures(turns)
    document: dict[str, Any] = {
        "begun": begun.isoformat(timespec="seconds"),
        "plan": plan._asdict(),
        "machine": machine(),
        "load_before": load_before,
        "load_after": load_averages(),
        "versions": versions(),
        "figures": found,
        "ours_to": ratios(found),
        "turns": turns,
    }
    out = given.out or RESULTS / f"callbacks-{begun:%Y%m%dT%H%M%SZ}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    told = ", ".join(f"{name} {version}" for name, version in document["versions"].items())
    sys.stdout.write(
        f"\n{document['machine']}\n{told}\nload {load_before} before\n\n{table(turns)}\n\nWritten to {out}\n"
    )
    return 0


def versions() -> dict[str, str]:
    """What ran, by name."""
    asked = [str(BENCH_PYTHON), "-c", _ASK, *PACKAGES]
    found: dict[str, str] = {"oplata": importlib.metadata.version("oplata"), "python": platform.python_version()}
    found |= json.loads(subprocess.run(asked, capture_output=True, text=True, check=True).stdout)
    found["node"] = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    for name in ("h3", "amqplib", "pg"):
        found[name] = json.loads((NODE_FOLDER / "node_modules" / name / "package.json").read_text())["version"]
    return found


def _started() -> dict[str, float]:
    """How long the help takes, from the command to its end."""
    begun_s = time.perf_counter()
    subprocess.run([str(PYTHON), "-m", "oplata", "--help"], capture_output=True, check=True)
    return {"help_s": time.perf_counter() - begun_s}


if __name__ == "__main__":
    say("RabbitMQ and PostgreSQL are started")
    sys.exit(main())
