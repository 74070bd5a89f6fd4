"""One TCP connection: two directions, each in order, that can be cut, or go silent without a word."""

from __future__ import annotations

import random
from collections.abc import Callable

from tests.simulation.loop import Process

SLOWEST_NOTICE_S = 0.05


class Cable:
    """Carries calls from one process to another, later. ``*_lost`` are told when the cable is cut."""

    def __init__(self, rng: random.Random, client: Process, server: Process) -> None:
        self._rng = rng
        self._ends = {"client": client, "server": server}
        self._last_s = {"client": 0.0, "server": 0.0}
        self._open = {"client": True, "server": True}
        self.is_silent = False
        self.is_cut = False
        self.on_client_lost: Callable[[], None] = lambda: None
        self.on_server_lost: Callable[[], None] = lambda: None

    def to_server(self, call: Callable[[], None]) -> None:
        """Something the client sends."""
        self._send("server", call)

    def to_client(self, call: Callable[[], None]) -> None:
        """Something the server sends."""
        self._send("client", call)

    def cut(self, *, flush: bool) -> None:
        """Both ends hear of it soon. With ``flush`` what the client has sent still arrives: only answers are lost."""
        if self.is_cut:
            return
        self.is_cut = True
        self._open["client"] = False
        if not flush:
            self._open["server"] = False
        self._notice("client", self.on_client_lost)
        self._notice("server", self.on_server_lost)

    def fall_silent(self) -> None:
        """What is sent goes nowhere, and nobody is told."""
        self.is_silent = True

    def _notice(self, end: str, tell: Callable[[], None]) -> None:
        process = self._ends[end]
        at_s = max(self._last_s[end], process.loop.time()) + self._rng.random() * SLOWEST_NOTICE_S
        process.loop.call_at(at_s, self._close, end, tell, context=process.context)

    def _close(self, end: str, tell: Callable[[], None]) -> None:
        self._open[end] = False
        tell()

    def _send(self, end: str, call: Callable[[], None]) -> None:
        if self.is_silent or self.is_cut:
            return
        process = self._ends[end]
        at_s = max(self._last_s[end], process.loop.time() + self._rng.expovariate(1 / 0.0005))
        self._last_s[end] = at_s
        process.loop.call_at(at_s, self._arrive, end, call, context=process.context)

    def _arrive(self, end: str, call: Callable[[], None]) -> None:
        if self._open[end] and not self.is_silent:
            call()
