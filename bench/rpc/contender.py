"""Who is measured: how each server is started, what it is asked, and what the right answer is."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import quote

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "bench" / "rpc"
PYTHON = ROOT / ".venv-bench" / "bin" / "python"

BATCH = 10
VARIETY = 16
"""So many different requests are sent in turn, so that no answer could be a remembered one."""

Name = Literal["ours", "node", "fastapi"]
Mode = Literal["single", "batch"]
NAMES: tuple[Name, ...] = ("ours", "node", "fastapi")
MODES: tuple[Mode, ...] = ("single", "batch")
TITLES: dict[Name, str] = {"ours": "oplata.rpc", "node": "@trpc/server", "fastapi": "FastAPI"}


class Question(NamedTuple):
    """One request as a path, and the JSON that has to come back."""

    path: str
    answer: Any


def command(name: Name, port: int, lifetime_s: float, node: str) -> list[str]:
    """What starts that server; it runs in the folder of the checkout."""
    if name == "node":
        return [node, str(FOLDER / "servers" / "node.mjs"), str(port), str(lifetime_s)]
    module = "bench.rpc.servers.ours" if name == "ours" else "bench.rpc.servers.fastapi_app"
    return [str(PYTHON), "-m", module, "--port", str(port), "--lifetime-s", str(lifetime_s)]


def calls_a_request(name: Name, mode: Mode) -> int:
    """FastAPI has no batches: its ten calls are ten requests, one after another on a connection that stays open."""
    return BATCH if mode == "batch" and name != "fastapi" else 1


def questions(name: Name, mode: Mode) -> list[Question]:
    """What is asked in turn."""
    if name == "fastapi":
        return [Question(f"/orders/{number}", _order(number)) for number in _numbers()]
    if mode == "single":
        return [Question(_path(["orderById"], {"orderId": number}), _told(number)) for number in _numbers()]
    return [_batch(number) for number in _numbers()]


def _numbers() -> range:
    return range(1000, 1000 + VARIETY)


def _batch(first: int) -> Question:
    numbers = range(first, first + BATCH)
    inputs = {str(index): {"orderId": number} for index, number in enumerate(numbers)}
    path = _path(["orderById"] * BATCH, inputs, "batch=1&")
    return Question(path, [_told(number) for number in numbers])


def _path(procedures: list[str], given: Any, options: str = "") -> str:
    """As ``@trpc/client`` writes it: encodeURIComponent leaves a few signs alone that Python would not."""
    text = quote(json.dumps(given, separators=(",", ":")), safe="!~*'()")
    return f"/trpc/{','.join(procedures)}?{options}input={text}"


def _told(number: int) -> Any:
    return {"result": {"data": _order(number)}}


def _order(number: int) -> Any:
    items = [{"name": "margherita", "quantity": 2}, {"name": "lemonade", "quantity": 1}]
    return {"orderId": number, "status": "paid", "amountKopecks": number * 100, "items": items}


def missing(node: str | None) -> str | None:
    """What has to be installed first, as a sentence; None if all is there."""
    if sys.platform != "linux":
        return "The servers' time and memory are read from /proc: this runs on Linux."
    if not PYTHON.exists() or node is None or not (FOLDER / "node_modules").exists():
        return "The servers are not installed yet: run `make bench-rpc`, which needs Node and npm."
    return None
