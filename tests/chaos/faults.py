"""Breaks the parts as the schedule says, and mends them again."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec

from oplata.errors import OplataError
from oplata.queue.rabbitmq.channel import ChannelClosed
from tests.chaos.schedule import Fault
from tests.chaos.system import QUEUE, System, Wire
from tests.contract.amqp import stranger
from tests.services import ledger
from tests.services.processes import alive, descendants
from tests.services.server import Server

EMPTY_TIMEOUT_S = 25.0
RETURN_S = 0.7
LAY_S = 0.5


class Struck(msgspec.Struct, frozen=True):
    """A fault that happened, on the monotonic clock. ``note`` says what the name does not."""

    fault: Fault
    began_s: float
    ended_s: float
    note: str = ""


class Breaker:
    """Strikes with one fault after another, several at a time where they concern different parts."""

    def __init__(self, system: System, say: Callable[[str], None]) -> None:
        self._system = system
        self._say = say
        self._locks = {part: asyncio.Lock() for part in ("serve", "worker", "relay", "broker", "database")}
        self.struck: list[Struck] = []
        self.drains: list[tuple[int, float, float]] = []
        self.destroyed = 0

    async def follow(self, faults: list[Fault], began_s: float) -> None:
        """Strike with each when its time has come; returns when all are over and everything is mended."""
        async with asyncio.TaskGroup() as group:
            for fault in faults:
                await asyncio.sleep(max(0.0, began_s + fault.at_s - time.monotonic()))
                group.create_task(self._strike(fault))
        await self.mend()

    async def mend(self) -> None:
        """See to it that nothing is broken any more."""
        for wire in self._system.wires.values():
            wire.resume()
        for offspring in self._system.offspring:
            offspring.tell(signal.SIGCONT)
        self._ballast.unlink(missing_ok=True)
        for server in [self._system.database, *self._system.brokers]:
            self._freeze(server, signal.SIGCONT)
            await asyncio.to_thread(server.start)

    async def _strike(self, fault: Fault) -> None:
        verb, _, part = fault.kind.partition(" ")
        async with AsyncExitStack() as held:
            # In the order of the names, so that two faults never wait for each other.
            for name in sorted(self._parts(fault.kind)):
                await held.enter_async_context(self._locks[name])
            began_s = time.monotonic()
            self._say(f"{fault.kind} ({fault.which}) {fault.hold_s or ''}")
            note = await self._act(verb, part, fault)
            self.struck.append(Struck(fault, began_s, time.monotonic(), note))

    def _parts(self, kind: str) -> set[str]:
        if kind in ("delete queue", "fill spool disk"):
            return set(self._locks)
        if "broker" in kind or "node" in kind:
            return {"broker"}
        return {"database"} if "database" in kind else {kind.split()[-1]} & set(self._locks)

    async def _act(self, verb: str, part: str, fault: Fault) -> str:
        special: dict[str, Callable[[Fault], Awaitable[str]]] = {
            "jump clock": self._jump,
            "delete queue": self._delete_queue,
            "fill spool disk": self._fill_disk,
            "kill node": self._kill_node,
            "restart node": self._restart_node,
        }
        if fault.kind in special:
            return await special[fault.kind](fault)
        if part in self._system.wires and verb in ("cut", "stall", "refuse"):
            return await self._wire(verb, self._system.wires[part], fault)
        if part in ("broker", "database"):
            server = self._system.database if part == "database" else self._system.brokers[0]
            return await self._server(verb, server, fault)
        return await self._process(verb, part, fault)

    async def _process(self, verb: str, part: str, fault: Fault) -> str:
        system = self._system
        several = {"serve": system.serves, "worker": system.workers, "relay": system.relays}[part]
        chosen = several[fault.which % len(several)]
        if verb == "kill":
            return chosen.name if chosen.kill9() else f"{chosen.name} was down already"
        if verb == "freeze":
            chosen.tell(signal.SIGSTOP)
            await asyncio.sleep(fault.hold_s)
            chosen.tell(signal.SIGCONT)
            return chosen.name
        for each in several:
            began_s = time.monotonic()
            await each.stop()
            if part == "serve":
                port = self._system.ports[several.index(each)]
                self.drains.append((port, began_s, time.monotonic()))
            await each.start()
            await each.until_said("is ready")
        return f"{part} one after another"

    async def _wire(self, verb: str, wire: Wire, fault: Fault) -> str:
        if verb == "cut":
            await wire.cut()
            return ""
        if verb == "stall":
            wire.stall()
        else:
            await wire.refuse()
        await asyncio.sleep(fault.hold_s)
        wire.resume()
        return ""

    async def _server(self, verb: str, server: Server, fault: Fault) -> str:
        if verb == "freeze":
            self._freeze(server, signal.SIGSTOP)
            await asyncio.sleep(fault.hold_s)
            self._freeze(server, signal.SIGCONT)
            return ""
        await asyncio.to_thread(server.kill9 if verb == "kill" else server.stop)
        await asyncio.to_thread(server.start)
        return ""

    def _freeze(self, server: Server, how: signal.Signals) -> None:
        for record in ledger.read():
            if record.url != server.url:
                continue
            for process in record.processes:
                for member in (process, *descendants(process)):
                    if alive(member):
                        os.kill(member.pid, how)

    async def _jump(self, fault: Fault) -> str:
        chosen = self._system.offspring[fault.which % len(self._system.offspring)]
        self._system.clocks.set(chosen.name, fault.jump_ms)
        return f"{chosen.name} by {fault.jump_ms / 1000:g} s"

    async def _delete_queue(self, fault: Fault) -> str:
        """Delete the queue under its consumers once nothing is in it: what is in a deleted queue is lost by the
        operator's own act. No endpoint publishes meanwhile; what they take goes to the spool.
        """
        serves, workers = self._system.wires["serve-broker"], self._system.wires["worker-broker"]
        await serves.refuse()
        try:
            if not await self._is_empty(workers):
                return "left alone: it did not become empty in time"
            async with stranger(self._system.broker_url) as channel:
                deleted = await channel.call(channel.raw.queue_delete, QUEUE)
            self.destroyed += int(deleted.message_count)
            return f"{deleted.message_count} messages in it"
        finally:
            workers.resume()
            serves.resume()

    async def _is_empty(self, workers: Wire) -> bool:
        """Wait until neither the queue nor any worker holds a message, and the workers are consumers again.

        What a worker holds is not counted among the ready, so the workers are cut off for the last look.
        """
        deadline_s, names = time.monotonic() + EMPTY_TIMEOUT_S, [QUEUE, *self._system.rungs]
        while time.monotonic() < deadline_s:
            if await self._hold_nothing(names):
                await workers.refuse()
                await asyncio.sleep(RETURN_S)
                empty = await self._hold_nothing(names)
                workers.resume()
                if empty:
                    return await self._is_consumed(deadline_s) and await self._hold_nothing(names)
            await asyncio.sleep(0.2)
        return False

    async def _hold_nothing(self, names: list[str]) -> bool:
        return await ready_messages(self._system.broker_url, *names) == 0

    async def _is_consumed(self, deadline_s: float) -> bool:
        while time.monotonic() < deadline_s:
            if await consumers(self._system.broker_url) == len(self._system.workers):
                return True
            await asyncio.sleep(0.1)
        return False

    @property
    def _ballast(self) -> Path:
        return self._system.spool_disk / "ballast"

    async def _fill_disk(self, fault: Fault) -> str:
        """Leave the spool no byte while the broker is away: now the answer may only be 503."""
        wire = self._system.wires["serve-broker"]
        ballast = self._ballast
        try:
            written = await asyncio.to_thread(_fill, ballast) if self._system.small_disk else 0
            await wire.refuse()
            await asyncio.sleep(fault.hold_s)
        finally:
            ballast.unlink(missing_ok=True)
            wire.resume()
        return f"{written} bytes of ballast"

    async def _kill_node(self, fault: Fault) -> str:
        node = self._system.brokers[fault.which % len(self._system.brokers)]
        await asyncio.to_thread(node.kill9)
        await self._lay_elsewhere(node)
        await asyncio.sleep(fault.hold_s)
        await asyncio.to_thread(node.start)
        return f"node {self._system.brokers.index(node) + 1}"

    async def _restart_node(self, fault: Fault) -> str:
        node = self._system.brokers[fault.which % len(self._system.brokers)]
        stopping = asyncio.create_task(asyncio.to_thread(node.stop))
        await self._lay_elsewhere(node)
        await stopping
        await asyncio.to_thread(node.start)
        return f"node {self._system.brokers.index(node) + 1}"

    async def _lay_elsewhere(self, node: Server) -> None:
        """As a load balancer does some time after a node stopped answering."""
        await asyncio.sleep(LAY_S)
        others = [each for each in self._system.brokers if each is not node]
        for wire in self._system.wires.values():
            if wire.port_behind == node.port:
                wire.lay(self._system.rng.choice(others).port)
                await wire.cut()


async def ready_messages(url: str, *names: str) -> int | None:
    """How many messages are ready in these queues, or in the main one; None while that cannot be told."""
    return await _asked(url, "message_count", *(names or (QUEUE,)))


async def consumers(url: str) -> int | None:
    """How many consume from the main queue; None while that cannot be told."""
    return await _asked(url, "consumer_count", QUEUE)


async def _asked(url: str, what: str, *names: str) -> int | None:
    try:
        async with asyncio.timeout(2), stranger(url) as channel:
            told = [await channel.call(channel.raw.queue_declare, name, passive=True) for name in names]
            return sum(int(getattr(each, what)) for each in told)
    except (TimeoutError, OSError, OplataError, ChannelClosed):
        return None


def _fill(path: Path) -> int:
    """Write until the disk is full."""
    written = 0
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                written += file.write(bytes(65_536))
        except OSError:
            return written
