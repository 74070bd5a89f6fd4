"""One seed from its beginning to its end, in a directory of its own."""

from __future__ import annotations

import gc
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from tests.simulation.trace import logged_to
from tests.simulation.world import World

_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  Only for speed: nothing here needs to outlive the run.


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """How a run ended. ``failure`` is None when nothing that must not be ever was."""

    seed: int
    failure: str | None
    shape: str
    steps: int
    simulated_s: float
    digest: str
    promised: int
    applied: int
    crashes: int
    checks: int
    tail: tuple[str, ...]


@contextmanager
def directory() -> Iterator[Path]:
    """A place for the files of one run, in memory where the machine has such a place."""
    parent = str(_SHARED_MEMORY) if _SHARED_MEMORY.is_dir() else None
    path = Path(tempfile.mkdtemp(prefix="oplata-simulation-", dir=parent))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def simulate(seed: int, *, verbose: bool = False) -> Result:
    """Run one seed from its beginning to its end."""
    gc.disable()  # What a destructor does must not depend on when it happens to run.
    gc.freeze()  # Only what this run leaves is looked through at its end.
    try:
        with directory() as root:
            world = World(seed, root, verbose=verbose)
            with logged_to(world.trace):
                try:
                    world.run()
                    result = _result(seed, world)
                finally:
                    world.close()
                    del world
                    gc.collect()
    finally:
        gc.unfreeze()
        gc.enable()
    return result


def _result(seed: int, world: World) -> Result:
    return Result(
        seed=seed,
        failure=world.failure,
        shape=str(world.shape),
        steps=world.loop.steps,
        simulated_s=world.ends_s - world.begin_s,
        digest=world.trace.digest,
        promised=len(world.ledger.promised),
        applied=len(world.checkers._kept),
        crashes=world.crashes,
        checks=world.checkers.runs,
        tail=tuple(world.trace.tail),
    )
