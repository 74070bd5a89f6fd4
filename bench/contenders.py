"""Who is measured beside whom, and how each is started."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from bench.stage import BENCH_PYTHON, PYTHON, ROOT

NODE_FOLDER = ROOT / "bench" / "peers" / "node"


class Endpoint(NamedTuple):
    """Something that takes callbacks at a port."""

    name: str
    title: str
    command: Callable[[int], list[str]]
    kinds: tuple[str, ...] = ("quorum", "classic")


class Drainer(NamedTuple):
    """Something that empties the queue; ``fill`` is the module that sends in its own format, and ``share`` how much of
    the full count it is given, for those that would take minutes."""

    name: str
    title: str
    command: list[str]
    table: str = "shop_orders"
    fill: str | None = None
    share: float = 0.2
    kinds: tuple[str, ...] = ("quorum",)


def _node(script: str, *arguments: str) -> list[str]:
    return ["node", str(NODE_FOLDER / script), *arguments]


def _python(*arguments: str) -> list[str]:
    return [str(BENCH_PYTHON), "-m", *arguments]


def _uvicorn(module: str) -> Callable[[int], list[str]]:
    return lambda port: _python("bench.peers.uvicorn_main", f"bench.peers.{module}", str(port))


OURS = Endpoint("ours", "oplata serve", lambda port: [str(PYTHON), "-m", "oplata", "serve", "--port", str(port)])
BARE = Endpoint("bare", "uvicorn + a bare client", _uvicorn("bare_http"))
ENDPOINTS = (
    OURS,
    Endpoint("node_usual", "the usual Node endpoint", lambda port: _node("usual.mjs", str(port))),
    Endpoint("node_tuned", "its tuned form", lambda port: _node("tuned.mjs", str(port))),
    Endpoint("aio_pika", "Starlette + aio-pika", _uvicorn("aio_pika_http")),
    BARE,
    Endpoint("asgi_only", "uvicorn without a broker", _uvicorn("asgi_only"), ("quorum",)),
)

_CELERY = ["celery", "-A", "bench.peers.celery_worker", "worker", "--pool", "prefork", "--loglevel", "ERROR"]
_TASKIQ = ["taskiq", "worker", "--workers", "1", "--max-async-tasks", "100", "bench.peers.taskiq_worker:broker"]
_DRAMATIQ = ["dramatiq", "bench.peers.dramatiq_worker", "--processes", "1", "--threads", "8"]

OUR_WORKER = Drainer(
    "ours", "oplata worker, full effect", [str(PYTHON), "-m", "oplata", "worker"], "orders", None, 1.0,
    ("quorum", "classic"),
)  # fmt: skip
DRAINERS = (
    OUR_WORKER,
    Drainer("node_usual", "the usual Node worker, prefetch 1", _node("worker.mjs", "1"), share=0.1),
    Drainer("node_tuned", "its tuned form, prefetch 100", _node("worker.mjs", "100"), share=0.5),
    Drainer("aio_pika", "aio-pika by hand", _python("bench.peers.aio_pika_worker")),
    Drainer("celery", "celery", _python(*_CELERY), fill="bench.peers.celery_worker", share=0.1),
    Drainer("dramatiq", "dramatiq", _python(*_DRAMATIQ), fill="bench.peers.dramatiq_worker", share=0.1),
    Drainer("taskiq", "taskiq", _python(*_TASKIQ), fill="bench.peers.taskiq_worker"),
    Drainer("faststream", "FastStream", _python("bench.peers.faststream_worker")),
    Drainer("bare", "a bare client in batches, full effect", _python("bench.peers.bare_worker"), share=1.0),
)

# An endpoint and the worker behind it, for the time from a callback to its commit.
PAIRS = (
    ("ours", "ours"),
    ("node_usual", "node_usual"),
    ("node_tuned", "node_tuned"),
    ("bare", "bare"),
)
FRAMEWORKS = ("celery", "dramatiq", "taskiq", "faststream", "aio_pika")
