"""One way of breaking the program on purpose, and whether the simulation finds it out."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest import mock

import msgspec

from tests.simulation import run
from tests.simulation.shape import Shape, shape_of

Patch = Callable[[], Any]


class Mutant(msgspec.Struct, frozen=True, kw_only=True):
    """``patches`` are applied together. ``needs`` says in which deployments it can do harm at all."""

    name: str
    patches: Sequence[Patch]
    needs: Callable[[Shape], bool] = lambda shape: shape.faults > 0

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """The program is broken while this lasts."""
        with contextlib.ExitStack() as stack:
            for patch in self.patches:
                stack.enter_context(patch())
            yield

    def dies_at(self, seeds: Sequence[int]) -> tuple[int, str] | None:
        """The first of these seeds that finds it out, and how; seeds that can't are not run."""
        for seed in seeds:
            if self.needs(shape_of(random.Random(seed))):
                with self.applied():
                    failure = run.simulate(seed).failure
                if failure is not None:
                    return seed, failure
        return None


def replaced(owner: Any, name: str, new: Any) -> Patch:
    """Put something else in the place of a function or a method."""
    return lambda: mock.patch.object(owner, name, new)


def on_rabbitmq(shape: Shape) -> bool:
    return shape.broker == "rabbitmq" and shape.faults > 5


def on_sqlite(shape: Shape) -> bool:
    return shape.broker == "sqlite" and shape.faults > 2


def with_spool(shape: Shape) -> bool:
    return shape.spool and shape.faults > 5


def with_much_trouble(shape: Shape) -> bool:
    return shape.faults > 5


def always(_shape: Shape) -> bool:
    return True
