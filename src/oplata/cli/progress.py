"""One line that tells how far a long command has come, for a person who watches; a file or a pipe gets none of it."""

from __future__ import annotations

import sys
import time

EVERY_S = 0.2


class Progress:
    """A line on standard error that is written over."""

    def __init__(self) -> None:
        self._watched = sys.stderr.isatty()
        self._shown_at_s = 0.0
        self._width = 0

    def show(self, text: str) -> None:
        """Say how far it is, at most five times a second."""
        now_s = time.monotonic()
        if self._watched and now_s - self._shown_at_s >= EVERY_S:
            self._shown_at_s = now_s
            sys.stderr.write(f"\r{text:<{self._width}}")
            sys.stderr.flush()
            self._width = len(text)

    def clear(self) -> None:
        """Take the line away before something else is printed."""
        if self._width:
            sys.stderr.write(f"\r{'':<{self._width}}\r")
            sys.stderr.flush()
            self._width = 0
