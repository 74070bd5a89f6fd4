"""An event loop whose time is invented, and the operating-system processes that live in it.

Within a process callbacks run in the order in which they were called for, as asyncio promises; which process runs
next is chosen by the seed. A process may be killed between any two callbacks: what it still had to do never happens.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from typing import Any, TypeVar, TypeVarTuple

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")

STEP_S = 5e-6
"""How long a callback takes."""

_PROCESS: ContextVar[Process] = ContextVar("process")


class Process:
    """What runs between a start and a death. ``on_death`` is called once, at a death that was not asked for."""

    def __init__(self, loop: Loop, name: str) -> None:
        self.loop = loop
        self.name = name
        self.ready: deque[asyncio.Handle] = deque()
        self.is_dead = False
        self.asleep_until_s = 0.0
        self.steps_to_live: int | None = None
        self.on_death: Callable[[], None] = lambda: None
        self.context: Context = copy_context()
        self.context.run(_PROCESS.set, self)
        loop.processes.append(self)

    def __repr__(self) -> str:
        return self.name

    def spawn(self, coroutine: Coroutine[Any, Any, Any], name: str | None = None) -> asyncio.Task[Any]:
        """Begin a task in this process."""
        return self.loop.create_task(coroutine, name=name or self.name, context=self.context.copy())

    def later(self, delay_s: float, callback: Callable[..., object], *args: Any) -> asyncio.TimerHandle:
        """Call something in this process, after a while."""
        return self.loop.call_at(self.loop.time() + delay_s, callback, *args, context=self.context)

    def kill(self) -> None:
        """No callback of this process runs any more: no handler, no ``finally``, no destructor of a task."""
        if not self.is_dead:
            self.is_dead = True
            self.on_death()


class Loop(asyncio.BaseEventLoop):
    """``after_step`` is called after each callback. ``most_steps`` bounds them all."""

    def __init__(self, rng: random.Random, *, most_steps: int) -> None:
        super().__init__()
        self._rng = rng
        self._now_s = 1_000.0
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._numbers = itertools.count()
        self.processes: list[Process] = []
        self.steps = 0
        self.most_steps = most_steps
        self.after_step: Callable[[Process], None] = lambda _process: None
        self.is_over = False
        self.world = Process(self, "world")
        self.set_exception_handler(self._note_exception)
        self.complaints: list[str] = []

    def time(self) -> float:
        return self._now_s

    def call_soon(
        self, callback: Callable[[*_Ts], object], *args: *_Ts, context: Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._owner(handle).ready.append(handle)
        return handle

    def call_soon_threadsafe(
        self, callback: Callable[[*_Ts], object], *args: *_Ts, context: Context | None = None
    ) -> asyncio.Handle:
        return self.call_soon(callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[[*_Ts], object], *args: *_Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._timers, (when, next(self._numbers), timer))
        return timer

    def run_in_executor(self, executor: object, func: Callable[[*_Ts], _T], *args: *_Ts) -> asyncio.Future[_T]:
        raise AssertionError("a simulation has no threads")

    def finish(self) -> None:
        """Let every task end, those of the dead as well, with nothing left that they could have an effect on."""
        self.is_over = True
        for _ in range(20):
            tasks = [task for task in asyncio.all_tasks(self) if not task.done()]
            if not tasks:
                break
            for task in tasks:
                task.cancel()
            self.run_until_complete(self._a_while())
        for task in asyncio.all_tasks(self):
            task._log_destroy_pending = False  # type: ignore[attr-defined]  # As asyncio itself does.
        self.close()

    def close(self) -> None:
        super().close()
        self._timers.clear()
        for process in self.processes:
            process.ready.clear()
            process.on_death = lambda: None

    async def _a_while(self) -> None:
        await asyncio.sleep(120)

    def _owner(self, handle: asyncio.Handle) -> Process:
        owner: Process = handle._context.get(_PROCESS, self.world)  # type: ignore[attr-defined]  # No public way to ask.
        return owner

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """A cancelled timer is skipped when it comes up."""

    def _write_to_self(self) -> None:
        """Nobody sleeps in a selector."""

    def _run_once(self) -> None:
        while self._timers and self._timers[0][0] <= self._now_s:
            timer = heapq.heappop(self._timers)[2]
            if not timer.cancelled():
                self._owner(timer).ready.append(timer)
        awake = [each for each in self.processes if each.ready and self._is_awake(each)]
        if not awake:
            self._jump()
            return
        process = awake[0] if len(awake) == 1 else self._rng.choice(awake)
        handle = process.ready.popleft()
        if handle.cancelled():
            return
        if process.steps_to_live is not None and not self.is_over:
            process.steps_to_live -= 1
            if process.steps_to_live < 0:
                process.steps_to_live = None
                process.ready.appendleft(handle)
                process.kill()
                return
        self.steps += 1
        self._now_s += STEP_S
        handle._run()
        if not self.is_over:
            self.after_step(process)
            if self.steps >= self.most_steps:
                raise RuntimeError(f"the simulation did not end within {self.most_steps} steps")

    def _is_awake(self, process: Process) -> bool:
        return self.is_over or not (process.is_dead or process.asleep_until_s > self._now_s)

    def _jump(self) -> None:
        """Nothing is ready: time goes on to the next timer, or to whoever wakes up first."""
        while self._timers and self._timers[0][2].cancelled():
            heapq.heappop(self._timers)
        times = [self._timers[0][0]] if self._timers else []
        times += [each.asleep_until_s for each in self.processes if each.ready and not each.is_dead]
        if not times:
            raise RuntimeError("the simulation waits for something that never comes")
        self._now_s = max(self._now_s, min(times))

    def _note_exception(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if not self.is_over:
            error = context.get("exception")
            self.complaints.append(f"{context.get('message')}: {type(error).__name__}: {error}")
