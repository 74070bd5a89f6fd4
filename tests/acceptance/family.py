"""A parent of ours over children that do as they are told: ``python -m tests.acceptance.family PROCESSES CHILD``.

``CHILD`` is a Python program; ``sign(b"R")`` in it says that it is ready. Children of the real commands take a second
to start, and what a parent does about them does not depend on what they are.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections.abc import AsyncIterator

from oplata.cli.root import run
from oplata.cli.service import crashes, offspring
from oplata.cli.service.supervisor import Supervisor
from oplata.cli.service.systemd import Systemd
from oplata.observability.logging import configure
from oplata.settings.sources import service_manager

PRELUDE = """
import json, os, signal, socket, sys, time
post = json.loads(sys.argv[-1])
line = socket.socket(fileno=post["lifeline_fd"])
def sign(what): line.send(what)
"""


async def lines_of_a_pipe() -> AsyncIterator[str]:
    """Each line of standard input is news of a changed file."""
    while line := await asyncio.to_thread(sys.stdin.readline):
        yield line.strip()


def main() -> int:
    """Run the family."""
    processes, child, *rest = sys.argv[1:]
    crashes.CAP_S = 0.2
    if "--impatient" in rest:
        offspring.SILENCE_S, offspring.TICK_S = 1.0, 0.2
    configure("info", "json")
    supervisor = Supervisor(
        "family",
        [sys.executable, "-S", "-c", PRELUDE + child],
        processes=int(processes),
        drain_s=0.1,
        systemd=Systemd(service_manager()),
        changes=lines_of_a_pipe if "--reload" in rest else None,
        rng=random.Random(1),
    )
    return asyncio.run(supervisor.run())


if __name__ == "__main__":
    # The commands' own way to turn an error into a sentence and an exit code.
    from oplata.cli import root

    root.root.main = lambda **_: main()  # type: ignore[assignment,method-assign]
    code = run([])
    sys.stdout.flush()
    os._exit(code)
