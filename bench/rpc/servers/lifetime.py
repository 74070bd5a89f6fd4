"""How the two servers in Python run: one uvicorn process, the same loop and parser, and an end of their own."""

from __future__ import annotations

import argparse
import os
import threading
from typing import Any

import uvicorn


def serve(app: Any) -> None:
    """Serves on the loopback until it is told to stop, or until ``--lifetime-s`` is over, whoever forgot it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--lifetime-s", type=float, required=True)
    given = parser.parse_args()
    end = threading.Timer(given.lifetime_s, os._exit, args=(3,))
    end.daemon = True
    end.start()
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=given.port,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="off",
        log_level="warning",
        access_log=False,
    )
