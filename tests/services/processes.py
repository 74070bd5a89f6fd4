"""Processes that are started, recognised again and ended by their id; never by their name."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import NamedTuple

GONE_TIMEOUT_S = 10.0


class ProcessId(NamedTuple):
    """A process id with the kernel's start time beside it, because ids are given out again."""

    pid: int
    started: int


def identify(pid: int) -> ProcessId | None:
    """The identity of a running process; ``None`` when there is none, or only its unburied remains."""
    fields = _stat(pid)
    return None if fields is None or fields[0] in "ZX" else ProcessId(pid, int(fields[19]))


def alive(process: ProcessId) -> bool:
    """True while this very process runs."""
    return identify(process.pid) == process


def descendants(process: ProcessId) -> list[ProcessId]:
    """All living processes below this one. PostgreSQL's lead their own sessions, so a group would not hold them."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))) is not None:
            parents.setdefault(int(fields[1]), []).append(int(entry.name))
    found, level = list[ProcessId](), [process.pid]
    while level:
        level = [child for parent in level for child in parents.get(parent, [])]
        found += [identity for pid in level if (identity := identify(pid)) is not None]
    return found


def kill9(process: ProcessId) -> None:
    """Kill this process and all below it. It is frozen first, so that it starts no other meanwhile."""
    if not alive(process):
        return
    _send(process, signal.SIGSTOP)
    family = [process, *descendants(process)]
    for member in family:
        _send(member, signal.SIGKILL)
    for member in family:
        wait_until_gone(member, GONE_TIMEOUT_S)


def ask_to_end(process: ProcessId, how: signal.Signals, timeout_s: float) -> bool:
    """Send the polite signal and wait; False when it still runs after ``timeout_s``."""
    _send(process, how)
    return wait_until_gone(process, timeout_s)


def wait_until_gone(process: ProcessId, timeout_s: float) -> bool:
    """Wait, bury it if it was our child, and say whether it is gone."""
    deadline = time.monotonic() + timeout_s
    while alive(process):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _send(process: ProcessId, how: signal.Signals) -> None:
    if alive(process):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, how)


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat behind the name, which may itself hold spaces and brackets: state, parent, ..."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
