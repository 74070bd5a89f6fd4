"""Procedures by name, nested and merged."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar, overload

from oplata.rpc.errors import DeclarationError
from oplata.rpc.middleware import Base, Kind
from oplata.rpc.naming import camel
from oplata.rpc.procedure import Options, Procedure

if TYPE_CHECKING:
    from oplata.rpc.caller import Caller

F = TypeVar("F", bound=Callable[..., Any])

MAX_NESTING: Final = 16
_NAME = re.compile(r"[A-Za-z_$][A-Za-z0-9_$]*\Z")
# A client's proxy answers these itself, so a procedure of that name could never be called.
_RESERVED: Final = frozenset({"then", "call", "apply", "constructor", "prototype", "__proto__"})


class Router:
    """``orders = Router(base=authed)``, then ``@orders.query`` above an async function.

    The function stays what it was and can be called and tested as such. Names become camelCase on the wire; two that
    become the same name are refused, as is anything else that could not be served, with DeclarationError.
    """

    def __init__(self, *, base: Base[Any] | None = None, **children: Router) -> None:
        self._base: Base[Any] = Base() if base is None else base
        self._members: dict[str, Procedure | Router] = {}
        for name, child in children.items():
            self.include(name, child)

    @overload
    def query(self, function: F, /) -> F: ...
    @overload
    def query(
        self,
        function: None = None,
        /,
        *,
        name: str | None = None,
        base: Base[Any] | None = None,
        meta: Mapping[str, Any] | None = None,
        cache_control: str | None = None,
        batch: bool = True,
    ) -> Callable[[F], F]: ...
    def query(
        self,
        function: Callable[..., Any] | None = None,
        /,
        *,
        name: str | None = None,
        base: Base[Any] | None = None,
        meta: Mapping[str, Any] | None = None,
        cache_control: str | None = None,
        batch: bool = True,
    ) -> Any:
        """Declares something that reads.

        ``cache_control`` is the header of its answers, for example "public, max-age=60".
        """
        return self._declare("query", function, name, base, Options(cache_control, batch), meta)

    @overload
    def mutation(self, function: F, /) -> F: ...
    @overload
    def mutation(
        self,
        function: None = None,
        /,
        *,
        name: str | None = None,
        base: Base[Any] | None = None,
        meta: Mapping[str, Any] | None = None,
        batch: bool = True,
    ) -> Callable[[F], F]: ...
    def mutation(
        self,
        function: Callable[..., Any] | None = None,
        /,
        *,
        name: str | None = None,
        base: Base[Any] | None = None,
        meta: Mapping[str, Any] | None = None,
        batch: bool = True,
    ) -> Any:
        """Declares something that changes the world."""
        return self._declare("mutation", function, name, base, Options(None, batch), meta)

    @overload
    def subscription(self, function: F, /) -> F: ...
    @overload
    def subscription(
        self,
        function: None = None,
        /,
        *,
        name: str | None = None,
        base: Base[Any] | None = None,
        meta: Mapping[str, Any] | None = None,
    ) -> Callable[[F], F]: ...
    def subscription(
        self,
        function: Callable[..., Any] | None = None,
        /,
        *,
        name: str | None = None,
        base: Base[Any] | None = None,
        meta: Mapping[str, Any] | None = None,
    ) -> Any:
        """Declares an async generator whose values are told one by one. One that takes ``last_event_id: str | None =
        None`` and yields ``tracked(id, data)`` lets clients go on where they were."""
        return self._declare("subscription", function, name, base, Options(), meta)

    def _declare(
        self,
        kind: Kind,
        function: Callable[..., Any] | None,
        name: str | None,
        base: Base[Any] | None,
        options: Options,
        meta: Mapping[str, Any] | None,
    ) -> Any:
        def declare(function: F) -> F:
            procedure = Procedure(kind, function, base or self._base, options, meta or {})
            self._put(name or function.__name__, procedure)
            return function

        return declare if function is None else declare(function)

    def include(self, name: str, router: Router) -> None:
        """Nests a router under a name."""
        if any(inner is self for inner in router.routers()):
            raise DeclarationError(f"The router {name!r} would contain itself.")
        self._put(name, router)

    def merge(self, other: Router) -> None:
        """Takes over what the other router holds now, side by side with what is here."""
        for name, member in other._members.items():
            self._put(name, member)

    def _put(self, name: str, member: Procedure | Router) -> None:
        wire = camel(name)
        if not _NAME.match(wire) or wire in _RESERVED:
            raise DeclarationError(f"{name!r} cannot be the name of a procedure or a router.")
        if wire in self._members:
            what = "a router" if isinstance(self._members[wire], Router) else "a procedure"
            raise DeclarationError(f"{wire!r} is declared twice; {what} has that name already.")
        self._members[wire] = member

    @property
    def members(self) -> Mapping[str, Procedure | Router]:
        """Procedures and routers of this level by their name on the wire, in the order of declaration."""
        return self._members

    def routers(self) -> Iterator[Router]:
        """This router and all that are nested in it."""
        yield self
        for member in self._members.values():
            if isinstance(member, Router):
                yield from member.routers()

    def procedures(self) -> dict[str, Procedure]:
        """Every procedure by its path on the wire, ``{"orders.updateStatus": ...}``."""
        found: dict[str, Procedure] = {}
        self._collect("", found, 0)
        return found

    def _collect(self, prefix: str, found: dict[str, Procedure], depth: int) -> None:
        if depth > MAX_NESTING:
            raise DeclarationError(f"Routers are nested deeper than {MAX_NESTING} levels at {prefix!r}.")
        for name, member in self._members.items():
            if isinstance(member, Router):
                member._collect(f"{prefix}{name}.", found, depth + 1)
            else:
                found[prefix + name] = member

    def caller(self, ctx: Any = None) -> Caller:
        """Calls without HTTP: ``await router.caller(ctx).orders.update_status(order_id="7", status="paid")``."""
        from oplata.rpc.caller import Caller  # the caller is made of the router's procedures

        return Caller(self.procedures(), ctx)
