"""A procedure: a typed async function with a name, a kind, checks on both sides and middleware around it."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, TypeAlias

import msgspec

from oplata.errors import Retryable
from oplata.rpc.codec import Codec
from oplata.rpc.errors import DeclarationError, RpcError
from oplata.rpc.middleware import Base, Call, Kind, Proceed
from oplata.rpc.shape import UNKNOWN, VOID, Choice, Reference, Shape, Shapes, Stream
from oplata.rpc.shape import Mapping as Mapped
from oplata.rpc.signature import Signature, read_signature

INTERNAL: Final = "Internal server error"

# How a call's input is had: read when it is asked for, so that bad input of one call leaves its neighbours alone.
ReadInput: TypeAlias = Callable[[Codec], Any]


@dataclass(frozen=True, slots=True)
class Options:
    """``cache_control`` is the header of a query's answer; ``batch`` False refuses any batch that contains the
    procedure.
    """

    cache_control: str | None = None
    batch: bool = True


class Procedure:
    """Made by a router's decorators; ``input`` and ``output`` are None where nothing is taken or returned."""

    def __init__(
        self, kind: Kind, function: Callable[..., Any], base: Base[Any], options: Options, meta: Mapping[str, Any]
    ) -> None:
        self.where = f"{function.__module__}.{function.__qualname__}"
        self.kind: Kind = kind
        self.function = function
        self.options = options
        self.meta: Mapping[str, Any] = {**base.meta, **meta}
        self.doc = inspect.cleandoc(function.__doc__ or "")
        self.signature: Signature = read_signature(function)
        self.shapes = Shapes()
        if kind == "subscription" and not self.signature.streams:
            raise DeclarationError(f"{self.where}: a subscription is an async generator '-> AsyncIterator[T]'.")
        base.refuse_context(self.signature.context_type, self.where)
        self._middlewares = base.middlewares
        self.input = self._codec(self.signature.input_type)
        self.output = self._codec(self.signature.output_type)

    def _codec(self, annotation: Any) -> Codec | None:
        if annotation is None:
            return None
        try:
            return Codec(annotation, self.shapes)
        except DeclarationError as error:
            raise DeclarationError(f"{self.where}: {error}") from error

    @property
    def input_shape(self) -> Shape:
        return VOID if self.input is None else self.input.shape

    @property
    def output_shape(self) -> Shape:
        shape = VOID if self.output is None else self.output.shape
        return Stream(shape, self.signature.tracked) if self.signature.streams else shape

    @cached_property
    def takes_last_event_id(self) -> bool:
        """Whether the input has a place for the id after which a subscriber wants to go on."""
        return _has_last_event_id(self.input_shape, self.shapes)

    async def invoke(self, ctx: Any, path: str, read: ReadInput) -> Any:
        """Runs the middleware and the function; the result is not checked yet.

        A stream comes back as an async iterator.

        Raises whatever the function raises; ``fault`` turns that into an RpcError.
        """
        if not self._middlewares:
            return await self._call(ctx, read)
        return await self._step(0, ctx, path, read)

    async def _step(self, index: int, ctx: Any, path: str, read: ReadInput) -> Any:
        if index == len(self._middlewares):
            return await self._call(ctx, read)
        proceed: Proceed[Any] = Proceed(lambda narrowed: self._step(index + 1, narrowed, path, read))
        return await self._middlewares[index](Call(ctx, path, self.kind, self.meta), proceed)

    async def _call(self, ctx: Any, read: ReadInput) -> Any:
        arguments = {} if self.input is None else self._arguments(read(self.input))
        if self.signature.takes_context:
            arguments["ctx"] = ctx
        placed = [arguments.pop(name) for name in self.signature.positional if name in arguments]
        outcome: AsyncIterator[Any] | Awaitable[Any] = self.function(*placed, **arguments)
        return outcome if isinstance(outcome, AsyncIterator) else await outcome

    def _arguments(self, value: Any) -> dict[str, Any]:
        if self.signature.input_is_whole:
            return {} if value is msgspec.UNSET else {self.signature.field_names[0]: value}
        return {name: getattr(value, name) for name in self.signature.field_names}

    def absent_input(self) -> Any:
        """What an input that was not sent stands for; RpcError (BAD_REQUEST) where there has to be one.

        UNSET leaves the function's own default in force.
        """
        if self.input is None or not self.signature.input_is_optional:
            raise RpcError("BAD_REQUEST", "The input is missing.")
        return msgspec.UNSET if self.signature.input_is_whole else self.input.convert({})

    @property
    def input_may_be_absent(self) -> bool:
        """Whether a caller may leave the input out."""
        return self.input is None or self.signature.input_is_optional


def _has_last_event_id(shape: Shape, shapes: Shapes) -> bool:
    match shape:
        case Reference():
            return any(slot.wire == "lastEventId" for slot in shapes.record(shape).slots)
        case Choice(options):
            return any(_has_last_event_id(option, shapes) for option in options)
    return isinstance(shape, Mapped) or shape == UNKNOWN


def fault(error: BaseException, translate: Callable[[Exception], RpcError | None] | None = None) -> RpcError:
    """Any exception as the RpcError that the caller is told.

    What was not meant for the caller's eyes stays here, as the cause.
    """
    if isinstance(error, RpcError):
        return error
    known = translate(error) if translate is not None and isinstance(error, Exception) else None
    if known is None and isinstance(error, Retryable):
        known = RpcError("SERVICE_UNAVAILABLE", str(error))
    if known is None:
        known = RpcError("INTERNAL_SERVER_ERROR", INTERNAL)
    known.__cause__ = error
    return known
