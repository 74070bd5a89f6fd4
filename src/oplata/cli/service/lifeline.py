"""The socket between a parent and each of its processes: signs of life go up, and the parent's end is felt below."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time

READY = b"R"
ALIVE = b"."

ORPHAN_EXIT = 1


class Lifeline:
    """A process's own end. Made from the file descriptor that it was started with."""

    def __init__(self, fd: int) -> None:
        self._socket = socket.socket(fileno=fd)
        self._socket.set_inheritable(False)

    def say(self, sign: bytes) -> None:
        """Send a sign up. A parent that does not listen is not waited for."""
        with contextlib.suppress(OSError):
            self._socket.send(sign, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)

    def leave_with_parent(self, patience_s: float) -> None:
        """From now on, should the parent end in whatever way, this process drains, and leaves after ``patience_s``.

        A thread does it: it is heard even where the event loop is stuck.
        """
        threading.Thread(target=self._outlive, args=(patience_s,), name="oplata-lifeline", daemon=True).start()

    def _outlive(self, patience_s: float) -> None:
        with contextlib.suppress(OSError):
            # The parent never writes: what ends this wait is its end.
            self._socket.recv(1)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(patience_s)
        os._exit(ORPHAN_EXIT)
