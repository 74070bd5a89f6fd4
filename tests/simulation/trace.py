"""What happened, line by line: the tail for a person, the digest to tell whether two runs were the same."""

from __future__ import annotations

import hashlib
import logging
import re
import warnings
from collections import deque
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

import structlog
from sqlalchemy.exc import SAWarning

_ADDRESS = re.compile(r"0x[0-9a-f]{6,}")
_KEPT = ("action", "session", "role", "attempt", "tries", "reason", "error", "outcome", "status", "count", "traceback")


class Trace:
    """``root`` is the directory of this run; its name differs from run to run and is not part of what happened."""

    def __init__(self, now_s: Callable[[], float], *, root: str, tail: int = 300, verbose: bool = False) -> None:
        self._now_s = now_s
        self._root = root
        self._digest = hashlib.blake2b(digest_size=16)
        self._verbose = verbose
        self.tail: deque[str] = deque(maxlen=tail)
        self.lines = 0

    def note(self, who: object, what: str) -> None:
        """One more line."""
        line = _ADDRESS.sub("0x…", f"{self._now_s():12.6f} {who}: {what}".replace(self._root, "~"))
        self._digest.update(line.encode() + b"\n")
        self.tail.append(line)
        self.lines += 1
        if self._verbose:
            print(line, flush=True)  # noqa: T201  Asked for on the command line.

    @property
    def digest(self) -> str:
        """The same for two runs in which the same things happened at the same times."""
        return self._digest.hexdigest()


@contextmanager
def logged_to(trace: Trace) -> Iterator[None]:
    """Log lines of the program become lines of the trace."""

    def write(_logger: object, level: str, event: MutableMapping[str, Any]) -> str:
        told = " ".join(f"{key}={str(event[key])[:600]}" for key in _KEPT if event.get(key) is not None)
        trace.note("log", f"{level} {event.get('event')} {told}".replace("\n", " | "))
        raise structlog.DropEvent

    before, quietest = structlog.get_config(), logging.root.manager.disable
    # SQLAlchemy tells of connections that it could not close politely; they were meant to break.
    logging.disable(logging.CRITICAL)
    structlog.configure(processors=[write], wrapper_class=structlog.BoundLogger, cache_logger_on_first_use=False)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SAWarning)
            yield
    finally:
        structlog.configure(**before)
        logging.disable(quietest)
