"""``python -m bench.peers.uvicorn_main MODULE PORT``: one process, uvloop and httptools, as ours is served."""

from __future__ import annotations

import sys
from importlib import import_module

import uvicorn

if __name__ == "__main__":
    uvicorn.run(
        import_module(sys.argv[1]).app,
        host="127.0.0.1",
        port=int(sys.argv[2]),
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="on",
        log_level="error",
        access_log=False,
    )
