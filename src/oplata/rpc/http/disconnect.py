"""A client that goes away takes its procedure with it."""

from __future__ import annotations

import asyncio
from types import TracebackType

from oplata.rpc.http.asgi import Receive


class Disconnect:
    """Cancels the work inside the context when the client disconnects; the context then ends as if nothing had
    happened.

    Watching costs a task, so it begins only after ``after_s``: most calls are over by then. The request's body has to
    have been read before.
    """

    def __init__(self, receive: Receive, after_s: float) -> None:
        self._receive = receive
        self._after_s = after_s
        self._timer: asyncio.TimerHandle | None = None
        self._watch: asyncio.Task[None] | None = None
        self._worker: asyncio.Task[object] | None = None
        self.happened = False

    async def __aenter__(self) -> Disconnect:
        self._worker = asyncio.current_task()
        self._timer = asyncio.get_running_loop().call_later(self._after_s, self._begin)
        return self

    def _begin(self) -> None:
        self._watch = asyncio.get_running_loop().create_task(self._wait())

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if self._worker is not None:
            self.happened = True
            self._worker.cancel()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        worker, self._worker = self._worker, None
        if self._timer is not None:
            self._timer.cancel()
        if self._watch is not None and not self._watch.done():
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        if not self.happened or worker is None:
            return False
        # The cancellation was ours unless somebody else asked for one too.
        return worker.uncancel() == 0 and kind is not None and issubclass(kind, asyncio.CancelledError)
