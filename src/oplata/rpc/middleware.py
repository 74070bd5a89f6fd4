"""What runs around a procedure, and the reusable base that carries it.

A middleware is an async function of the call and of ``proceed``. It may refuse (raise RpcError), give ``proceed``
another context, measure, or look at the result:

    async def signed_in(call: Call[Context], proceed: Proceed[UserContext]) -> Any:
        if call.ctx.user is None:
            raise RpcError("UNAUTHORIZED")
        return await proceed(UserContext(call.ctx.user))

    authed = Base(Context).use(signed_in)
"""

from __future__ import annotations

import typing
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Generic, Literal, TypeAlias, TypeVar, get_args, get_origin

from oplata.rpc.errors import DeclarationError

C = TypeVar("C")
D = TypeVar("D")

Kind = Literal["query", "mutation", "subscription"]


@dataclass(frozen=True, slots=True)
class Call(Generic[C]):
    """One call on its way to a procedure: its context, its path on the wire, its kind and the procedure's metadata."""

    ctx: C
    path: str
    kind: Kind
    meta: Mapping[str, Any]


class Proceed(Generic[C]):
    """Goes on to the next middleware or the procedure, with the context given.

    For a subscription it returns the stream.
    """

    __slots__ = ("_go",)

    def __init__(self, go: Callable[[C], Awaitable[Any]]) -> None:
        self._go = go

    async def __call__(self, ctx: C) -> Any:
        return await self._go(ctx)


Middleware: TypeAlias = Callable[[Call[C], Proceed[D]], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Base(Generic[C]):
    """What procedures have in common: the type of their context, middleware and metadata.

    Every method returns a new one.
    """

    context: type[C] | None = None
    middlewares: tuple[Middleware[Any, Any], ...] = ()
    meta: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    def use(self, middleware: Middleware[C, D]) -> Base[D]:
        """Another base whose procedures also pass through this middleware, and see the context that it proceeds
        with.
        """
        narrowed = _proceeds_with(middleware)
        kept: Any = self.context if narrowed is None else narrowed
        return Base(kept, (*self.middlewares, middleware), self.meta)

    def with_meta(self, **meta: Any) -> Base[C]:
        return replace(self, meta=MappingProxyType({**self.meta, **meta}))

    def refuse_context(self, wanted: Any, where: str) -> None:
        """Raises DeclarationError if a procedure wants a context that this base does not provide."""
        given = self.context
        if isinstance(given, type) and isinstance(wanted, type) and not issubclass(given, wanted):
            raise DeclarationError(f"{where} wants a {wanted.__name__}, and its base provides a {given.__name__}.")


def _proceeds_with(middleware: Callable[..., Any]) -> Any | None:
    """``D`` of the annotation ``Proceed[D]``, if it was written and is a class."""
    try:
        hints = typing.get_type_hints(middleware)
    except (NameError, TypeError):
        return None
    for hint in hints.values():
        if get_origin(hint) is Proceed and isinstance(get_args(hint)[0], type):
            return get_args(hint)[0]
    return None
