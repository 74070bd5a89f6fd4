"""The trouble of a run: what goes wrong, and when. Everything that is broken here is mended before the end."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from tests.simulation.bank import until

if TYPE_CHECKING:
    from tests.simulation.world import World

Fault = Callable[["World"], Awaitable[None]]


async def crash(world: World) -> None:
    """``kill -9`` of a process, between any two of its callbacks."""
    process = world.rng.choice(world.programs).process
    process.steps_to_live = world.rng.choice((0, world.rng.randrange(60), world.rng.randrange(600)))


async def crash_everyone(world: World) -> None:
    """Everything is killed at once, as by a machine that has no memory left."""
    for program in world.programs:
        program.process.kill()


async def power_fails(world: World) -> None:
    """The machine loses its power, and with it what no disk was asked to keep."""
    world.lose_power()


async def restart(world: World) -> None:
    """A polite stop, as in a rolling restart."""
    world.rng.choice(world.programs).stop()


async def freeze(world: World) -> None:
    """SIGSTOP, and SIGCONT later."""
    process = world.rng.choice(world.programs).process
    process.asleep_until_s = world.loop.time() + world.rng.choice((0.5, 4.0, 12.0, 40.0)) * world.rng.random()


async def set_clocks(world: World) -> None:
    """Wall clocks jump: everybody's, or one machine's."""
    jump_ms = world.rng.choice((-1, 1)) * world.rng.choice((50, 2_000, 90_000, 4_000_000, 4_000_000))
    world.jump_clock(jump_ms)


async def database_away(world: World) -> None:
    """Nobody can reach the database for a while."""
    server = world.database
    server.is_away = True
    server.drop_all()
    await asyncio.sleep(world.rng.choice((0.3, 3.0, 12.0)) * world.rng.random())
    server.is_away = False


async def database_drops(world: World) -> None:
    """Connections to the database are lost, before the effect of a statement or after it."""
    server = world.database
    server.drop_chance = world.rng.choice((0.02, 0.1, 0.3))
    await asyncio.sleep(world.rng.random() * 5)
    server.drop_chance = 0.0


async def database_slow(world: World) -> None:
    """Every statement takes its time."""
    world.database.slowness = world.rng.choice((20, 200, 1500))
    await asyncio.sleep(world.rng.random() * 8)
    world.database.slowness = 1.0


async def database_locked(world: World) -> None:
    """A stranger holds the write lock: a backup, or an operator's session."""
    connection = sqlite3.connect(world.database.path, timeout=0, isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
        await asyncio.sleep(world.rng.choice((0.1, 2.0, 15.0)) * world.rng.random())
    except sqlite3.OperationalError:
        return
    finally:
        connection.close()


async def row_locked(world: World) -> None:
    """A stranger holds one order's row, and everything else goes on."""
    order_id = world.rng.choice(world.order_ids)
    world.database.locked_ids.add(order_id)
    await asyncio.sleep(world.rng.choice((1.0, 6.0, 20.0)) * world.rng.random())
    world.database.locked_ids.discard(order_id)


async def row_moody(world: World) -> None:
    """One order's callbacks fail in a way that nobody foresaw, and later they do not."""
    order_id = world.rng.choice(world.order_ids)
    world.database.moody_ids.add(order_id)
    await asyncio.sleep(world.rng.choice((1.0, 6.0, 20.0)) * world.rng.random())
    world.database.moody_ids.discard(order_id)


async def broker_crash(world: World) -> None:
    """The broker dies and comes back with what it had written."""
    if world.broker.is_up:
        world.broker.crash()
        await asyncio.sleep(world.rng.choice((0.2, 3.0, 15.0)) * world.rng.random())
        world.broker.begin()


async def queue_deleted(world: World) -> None:
    """Somebody deletes the queue under its consumers, sees what was in it, and has the bank send that once more."""
    world.delete_queue()


async def cables_cut(world: World) -> None:
    """Connections to the broker are reset; what was sent may still arrive, and answers do not."""
    for cable in list(world.broker.cables):
        if world.rng.random() < 0.6:
            cable.cut(flush=world.rng.random() < 0.6)


async def cables_flap(world: World) -> None:
    """Connections to the broker are reset again and again."""
    for _ in range(world.rng.randint(2, 12)):
        await cables_cut(world)
        await asyncio.sleep(world.rng.expovariate(1 / 0.1))


async def cables_silent(world: World) -> None:
    """Packets to and from the broker vanish, and no end is told."""
    for connection in list(world.broker.connections):
        if world.rng.random() < 0.6:
            connection.fall_silent()


async def broker_alarm(world: World) -> None:
    """The broker is short of memory or disk and takes no messages."""
    world.broker.set_alarm(True)
    await asyncio.sleep(world.rng.choice((0.5, 4.0, 15.0)) * world.rng.random())
    world.broker.set_alarm(False)


async def broker_refuses(world: World) -> None:
    """The broker answers some publishes with a nack."""
    world.broker.refusal_chance = world.rng.choice((0.3, 1.0))
    await asyncio.sleep(world.rng.random() * 4)
    world.broker.refusal_chance = 0.0


async def broker_slow(world: World) -> None:
    """The broker takes its time over everything."""
    world.broker.slowness = world.rng.choice((50, 1000, 4000))
    await asyncio.sleep(world.rng.random() * 8)
    world.broker.slowness = 1.0


async def disk_full(world: World) -> None:
    """Nothing more fits onto the disk of the queue's file and of the spool."""
    world.disk.is_full = True
    await asyncio.sleep(world.rng.choice((0.5, 5.0, 12.0)) * world.rng.random())
    world.disk.is_full = False


async def disk_slow(world: World) -> None:
    """A sync of that disk takes up to seconds."""
    world.disk.slowness = world.rng.choice((50, 1000, 4000))
    await asyncio.sleep(world.rng.random() * 8)
    world.disk.slowness = 1.0


async def disk_fails(world: World) -> None:
    """Some of what is done with that disk ends in an error, whatever it is."""
    world.disk.failure_chance = world.rng.choice((0.1, 0.5, 0.9))
    await asyncio.sleep(world.rng.random() * 5)
    world.disk.failure_chance = 0.0


async def answers_lost(world: World) -> None:
    """What the endpoint answers does not reach the bank."""
    world.answer_loss = world.rng.choice((0.3, 1.0))
    await asyncio.sleep(world.rng.random() * 5)
    world.answer_loss = 0.02


async def crash_loop(world: World) -> None:
    """Workers die again and again, each time with messages in hand, as under a limit of memory that is too low."""
    for _ in range(world.rng.randint(3, 8)):
        for program in world.programs:
            if program.takes_messages:
                program.process.steps_to_live = world.rng.randrange(400)
        await asyncio.sleep(world.rng.uniform(0.2, 1.5))


async def retries_in_trouble(world: World) -> None:
    """One order's callbacks fail, and what is to be put off cannot be: the queue takes nothing either."""
    failing = asyncio.ensure_future(row_moody(world))
    await asyncio.sleep(world.rng.random())
    await (broker_refuses if world.shape.broker == "rabbitmq" else disk_fails)(world)
    await failing


async def retries_and_clocks(world: World) -> None:
    """One order's callbacks are put off, and meanwhile clocks are set back by more than an hour."""
    failing = asyncio.ensure_future(row_moody(world))
    await asyncio.sleep(world.rng.uniform(0.3, 3.0))
    world.jump_clock(-4_000_000)
    await failing


ANYWHERE: tuple[Fault, ...] = (
    *(
        crash,
        crash,
        crash,
        crash,
        crash_everyone,
        power_fails,
        power_fails,
        restart,
        restart,
        freeze,
        set_clocks,
        set_clocks,
        answers_lost,
    ),
    *(database_away, database_away, database_drops, database_drops, database_slow, database_locked, row_locked),
    *(row_moody, row_moody, crash_loop, retries_in_trouble, retries_and_clocks),
)
WITH_RABBITMQ: tuple[Fault, ...] = (
    *(broker_crash, broker_crash, cables_cut, cables_cut, cables_flap, cables_silent, broker_alarm, broker_refuses),
    *(broker_slow, queue_deleted),
)
WITH_FILES: tuple[Fault, ...] = (disk_full, disk_full, disk_slow, disk_fails, disk_fails)


async def trouble(world: World) -> None:
    """All faults of this run, each at its time; returns when all of them are mended."""
    shape = world.shape
    choices = list(ANYWHERE)
    if shape.broker == "rabbitmq":
        choices += WITH_RABBITMQ * 2
    if shape.broker == "sqlite" or shape.spool:
        choices += WITH_FILES
    begin_s = world.loop.time()
    times = _times(world, shape.faults, shape.span_s)
    running = [
        asyncio.ensure_future(_strike(world, begin_s + at_s, fault))
        for at_s, fault in ((at_s, world.rng.choice(choices)) for at_s in times)
    ]
    if running:
        await asyncio.wait(running)
    for task in running:
        task.result()


def _times(world: World, count: int, span_s: float) -> list[float]:
    """Spread out, or close upon one another: most mistakes need two faults at once."""
    times = [world.rng.uniform(0.0, span_s) for _ in range(count)]
    if world.rng.random() < 0.5:
        centres = [world.rng.uniform(0.0, span_s) for _ in range(max(1, count // 5))]
        times = [abs(world.rng.gauss(world.rng.choice(centres), 0.7)) for _ in range(count)]
    return sorted(times)


async def _strike(world: World, at_s: float, fault: Fault) -> None:
    await until(world.loop, at_s)
    world.trace.note("fault", fault.__name__)
    await fault(world)
    world.trace.note("fault", f"{fault.__name__} is over")
