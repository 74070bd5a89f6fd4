"""Run every attack against one process, print what happened, and fail where one got further than it may."""

from __future__ import annotations

import argparse
import asyncio
import resource
import sys
import tempfile
from pathlib import Path

from tests.attack.target import Target, target
from tests.attack.tries import TRIES

TRY_TIMEOUT_S = 120.0


async def attack(at: Target, scale: float) -> list[tuple[str, str]]:
    """What came of each, by its name."""
    told: list[tuple[str, str]] = []
    for each in TRIES:
        async with asyncio.timeout(TRY_TIMEOUT_S):
            told.append((each.__name__, await each(at, scale)))
        assert at.words_of_strangers() == 0, each.__name__
        sys.stdout.write(f"{told[-1][0]}: {(each.__doc__ or '').strip()}\n    {told[-1][1]}\n")
        sys.stdout.flush()
    return told


def main() -> None:
    """``python -m tests.attack [--scale 0.1]``"""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="how much of each: 1 is 10,000 connections and 10 MB")
    scale = parser.parse_args().scale
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 20_000)), hard))
    with tempfile.TemporaryDirectory(prefix="oplata-attack-") as folder, target(Path(folder)) as at:
        asyncio.run(attack(at, scale))


if __name__ == "__main__":
    main()
