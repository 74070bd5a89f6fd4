"""Direct calls: the same checks, the same middleware, the same errors, and no HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Mapping
from typing import Any

import msgspec

from oplata.rpc.codec import Codec, write_foreign
from oplata.rpc.errors import RpcError
from oplata.rpc.forms import FormData, Octets
from oplata.rpc.naming import camel
from oplata.rpc.procedure import Procedure, fault
from oplata.rpc.tracked import Tracked


class Caller:
    """A router's procedures as attributes. Arguments are those of the function, without ``ctx``.

    Every failure is an RpcError; the exception behind it is its ``__cause__``.
    """

    def __init__(self, procedures: Mapping[str, Procedure], ctx: Any, path: str = "") -> None:
        self._procedures = procedures
        self._ctx = ctx
        self._path = path

    def __getattr__(self, name: str) -> Caller:
        if name.startswith("__"):
            raise AttributeError(name)
        path = f"{self._path}.{camel(name)}" if self._path else camel(name)
        if path not in self._procedures and not any(known.startswith(path + ".") for known in self._procedures):
            raise AttributeError(f"There is no procedure or router {path!r}.")
        return Caller(self._procedures, self._ctx, path)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """An awaitable of the result, or, for what streams, an async iterator."""
        procedure = self._procedures.get(self._path)
        if procedure is None:
            raise RpcError("NOT_FOUND", f'No procedure found on path "{self._path}"')
        read = _Arguments(procedure, args, kwargs)
        if procedure.signature.streams:
            return _stream(procedure, self._ctx, self._path, read)
        return _value(procedure, self._ctx, self._path, read)


class _Arguments:
    """Python arguments brought into the form of an input and checked like one."""

    def __init__(self, procedure: Procedure, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._procedure = procedure
        names = procedure.signature.field_names
        if len(args) > len(names) or set(kwargs) - set(names) or set(names[: len(args)]) & set(kwargs):
            raise TypeError(f"{procedure.where} takes {', '.join(names) or 'no arguments'}.")
        self._given = dict(zip(names, args, strict=False)) | kwargs

    def __call__(self, codec: Codec) -> Any:
        if not self._given:
            return self._procedure.absent_input()
        value = next(iter(self._given.values())) if self._procedure.signature.input_is_whole else self._fields()
        return value if isinstance(value, FormData | Octets) else codec.convert_stored(_builtins(value))

    def _fields(self) -> dict[str, Any]:
        return {camel(name): value for name, value in self._given.items()}


def _builtins(value: Any) -> Any:
    try:
        return msgspec.to_builtins(value, enc_hook=write_foreign, str_keys=True)
    except (TypeError, ValueError, RecursionError) as error:
        raise RpcError("BAD_REQUEST", str(error)) from error


async def _value(procedure: Procedure, ctx: Any, path: str, read: _Arguments) -> Any:
    try:
        result = await procedure.invoke(ctx, path, read)
        return None if procedure.output is None else procedure.output.checked(result)
    except Exception as error:
        _raise(error)


async def _stream(procedure: Procedure, ctx: Any, path: str, read: _Arguments) -> AsyncIterator[Any]:
    try:
        items: Any = await procedure.invoke(ctx, path, read)
        try:
            async for item in items:
                yield _checked(procedure, item)
        finally:
            await close(items)
    except Exception as error:
        _raise(error)


def _checked(procedure: Procedure, item: Any) -> Any:
    if procedure.output is None:
        return None
    if isinstance(item, Tracked):
        return Tracked(item.id, procedure.output.checked(item.data))
    return procedure.output.checked(item)


async def close(items: Any) -> None:
    """Ends an async generator, so that its ``finally`` runs now; other iterators have nothing to end."""
    ending: Awaitable[None] | None = items.aclose() if hasattr(items, "aclose") else None
    if ending is not None:
        await ending


def _raise(error: Exception) -> None:
    known = fault(error)
    if known is error:
        raise error
    raise known from error
