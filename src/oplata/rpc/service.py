"""What HTTP and WebSocket share: procedures, context, results and the shape of errors."""

from __future__ import annotations

import inspect
import logging
import traceback
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

import msgspec

from oplata.rpc.errors import CODES, RpcError
from oplata.rpc.limits import KeepAlive, Limits, Sse
from oplata.rpc.middleware import Kind
from oplata.rpc.procedure import Procedure, fault
from oplata.rpc.router import Router
from oplata.rpc.tracked import Tracked
from oplata.rpc.wire import Payload, Transformer, Wire

logger = logging.getLogger("oplata.rpc")

MAX_SHARED: Final = 256
MAX_SHARED_BYTES: Final = 4096
"""So many values of streams are kept in the form in which they are sent, if they are no longer than this."""


@dataclass(slots=True)
class Written:
    """A value as it is sent: its payload, and the event around it once somebody was sent that.

    The value is held beside what came of it, so its address cannot be another one's meanwhile.
    """

    value: Tracked[Any]
    procedure: Procedure
    payload: Payload
    event: bytes | None = None


@dataclass(slots=True)
class ContextRequest:
    """What a context is made of. ``headers`` are in lower case; what is put into ``response_headers`` is sent by HTTP.

    ``connection_params`` are what the client gave once for a WebSocket or a subscription; None where it gave none.
    """

    transport: Literal["http", "websocket"]
    method: str
    headers: Mapping[str, str]
    query: Mapping[str, str]
    paths: tuple[str, ...]
    connection_params: Mapping[str, str | None] | None
    client: tuple[str, int] | None
    scope: Mapping[str, Any]
    response_headers: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Failure:
    """What an error formatter may look at beside the shape."""

    error: RpcError
    path: str | None
    kind: Kind | None
    ctx: Any


MakeContext: TypeAlias = Callable[[ContextRequest], Any | Awaitable[Any]]
Formatter: TypeAlias = Callable[[dict[str, Any], Failure], Mapping[str, Any]]
Translate: TypeAlias = Callable[[Exception], RpcError | None]
OnError: TypeAlias = Callable[[Failure], None]


def log_failure(failure: Failure) -> None:
    """The default for ``on_error``: what the server did not foresee is logged, what it refused is the caller's
    matter.
    """
    if failure.error.http_status >= 500 and failure.error.__cause__ is not None:
        logger.error("A procedure failed: %s", failure.path, exc_info=failure.error.__cause__)


@dataclass(frozen=True, slots=True)
class Settings:
    """How a router is served. ``translate`` may turn an application's exceptions into RpcErrors.

    ``development`` adds stacks to errors. ``method_override`` lets queries come as POST. ``keep_alive`` is for
    clients of v11; those of v10 do not understand a PING.
    """

    context: MakeContext | None = None
    transformer: Transformer = "none"
    formatter: Formatter | None = None
    translate: Translate | None = None
    on_error: OnError = log_failure
    development: bool = False
    method_override: bool = False
    batching: bool = True
    limits: Limits = field(default_factory=Limits)
    sse: Sse = field(default_factory=Sse)
    keep_alive: KeepAlive | None = None
    jsonl_ping_s: float = 15.0


class Service:
    """A router with its settings, ready to answer calls of any transport."""

    def __init__(self, router: Router, settings: Settings) -> None:
        self.router: Final = router
        self.procedures: Final = router.procedures()
        self.settings: Final = settings
        self.wire: Final = Wire(settings.transformer)
        self._shared: dict[int, Written] = {}

    async def context(self, request: ContextRequest) -> Any:
        make = self.settings.context
        if make is None:
            return None
        ctx = make(request)
        return await ctx if inspect.isawaitable(ctx) else ctx

    async def value(self, procedure: Procedure, path: str, ctx: Any, read: Callable[[Any], Any]) -> Payload:
        """One result, checked. Raises what the procedure raises."""
        return self.wire.payload(procedure, await procedure.invoke(ctx, path, read))

    def input(self, procedure: Procedure, raw: bytes | msgspec.Raw | None, last_event_id: str | None) -> Any:
        """A checked input, into which the id to go on from is merged where there is a place for it."""
        codec = procedure.input
        if codec is None or last_event_id is None or not procedure.takes_last_event_id:
            return self.wire.read(procedure, raw)
        tree = self.wire.tree(raw)
        if isinstance(tree, dict):
            tree = {**tree, "lastEventId": last_event_id}
        elif tree is None or tree is msgspec.UNSET:
            tree = {"lastEventId": last_event_id}
        return codec.convert(tree)

    def item(self, procedure: Procedure, item: Any) -> tuple[str | None, Payload]:
        """One value of a stream, checked, with its id where it is tracked.

        Many subscribers may be told one and the same value: it is checked and written down for the first of them.
        """
        if not isinstance(item, Tracked):
            return None, self.wire.payload(procedure, item)
        known = self._known(procedure, item)
        if known is not None:
            return item.id, known.payload
        payload = self.wire.payload(procedure, item.data)
        if isinstance(payload, msgspec.Raw) and memoryview(payload).nbytes <= MAX_SHARED_BYTES:
            self._shared[id(item)] = Written(item, procedure, payload)
            if len(self._shared) > MAX_SHARED:
                del self._shared[next(iter(self._shared))]
        return item.id, payload

    def event(self, procedure: Procedure, item: Any, write: Callable[[str | None, Payload], bytes]) -> bytes:
        """One value of a stream as the event that is sent: the same bytes for all who are told the same value.

        ``write`` has to make the same of the same id and payload.
        """
        known = self._known(procedure, item)
        if known is not None and known.event is not None:
            return known.event
        event = write(*self.item(procedure, item))
        known = self._known(procedure, item)
        if known is not None:
            known.event = event
        return event

    def _known(self, procedure: Procedure, item: Any) -> Written | None:
        known = self._shared.get(id(item))
        return known if known is not None and known.value is item and known.procedure is procedure else None

    def shape(
        self, error: BaseException, path: str | None, kind: Kind | None = None, ctx: Any = None
    ) -> tuple[int, dict[str, Any]]:
        """The HTTP status and the shape of an error, after it was reported to ``on_error``."""
        known = fault(error, self.settings.translate)
        failure = Failure(known, path, kind, ctx)
        self._report(failure)
        number, status = CODES[known.code]
        data: dict[str, Any] = {"code": known.code, "httpStatus": status}
        if self.settings.development:
            data["stack"] = "".join(traceback.format_exception(known))
        if path is not None:
            data["path"] = path
        return status, self._formatted({"message": known.message, "code": number, "data": data}, failure)

    def _report(self, failure: Failure) -> None:
        try:
            self.settings.on_error(failure)
        except Exception:
            logger.exception("on_error failed.")

    def _formatted(self, shape: dict[str, Any], failure: Failure) -> dict[str, Any]:
        """An error formatter that fails itself must not take the answer with it."""
        if self.settings.formatter is None:
            return shape
        try:
            formatted = dict(self.settings.formatter(shape, failure))
            self.wire.encode(self.wire.wrap(formatted))
        except Exception:
            logger.exception("The error formatter failed.")
            return shape
        return formatted
