"""What the figures were measured on; without it they say nothing."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from bench.rpc.contender import FOLDER, PYTHON

PACKAGES = ("uvicorn", "uvloop", "httptools", "msgspec", "fastapi", "pydantic", "starlette")
NODE_PACKAGES = ("@trpc/server", "zod")
_ASK = "import importlib.metadata as m, json, sys; print(json.dumps({name: m.version(name) for name in sys.argv[1:]}))"


def machine() -> dict[str, Any]:
    """The hardware, as far as Linux tells it."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    model = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine()
    )
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "memory_mib": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // (1 << 20),
        "system": f"{platform.system()} {platform.release()}",
    }


def versions(node: str) -> dict[str, str]:
    """What ran, by name."""
    installed: dict[str, str] = json.loads(_said([str(PYTHON), "-c", _ASK, *PACKAGES]))
    found = {"oplata": importlib.metadata.version("oplata"), "python": platform.python_version(), **installed}
    found["node"] = _said([node, "--version"]).strip().removeprefix("v")
    for name in NODE_PACKAGES:
        told = json.loads((FOLDER / "node_modules" / name / "package.json").read_text(encoding="utf-8"))
        found[name] = told["version"]
    return found


def load_averages() -> list[float]:
    """Of the last 1, 5 and 15 minutes: what else the machine does."""
    return [round(value, 2) for value in os.getloadavg()]


def _said(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
