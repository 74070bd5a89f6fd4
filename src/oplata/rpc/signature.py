"""A Python function read as a procedure: what it takes, what it gives, and whether it wants the context.

- A parameter named ``ctx`` receives the context.
- A parameter before the slash is the whole input, of whatever type: ``async def by_id(post_id: str, /) -> Post``.
- Otherwise the parameters are the fields of an input object; if all have defaults, the input may be left out; without
  parameters there is none.
- ``-> None`` is nothing (``undefined``); ``-> Literal[None]`` is ``null``; ``-> AsyncIterator[T]`` is a stream.
"""

from __future__ import annotations

import copy
import inspect
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from oplata.rpc.annotations import is_model, stream_item, tracked_item
from oplata.rpc.errors import DeclarationError
from oplata.rpc.naming import camel

CONTEXT = "ctx"


@dataclass(frozen=True, slots=True)
class Signature:
    """``input_type`` is None where there is no input; ``output_type`` is None where nothing is returned."""

    context_type: Any | None
    takes_context: bool
    input_type: Any | None
    input_is_whole: bool
    input_is_optional: bool
    output_type: Any | None
    streams: bool
    tracked: bool
    field_names: tuple[str, ...]
    positional: tuple[str, ...]


def read_signature(function: Callable[..., Any]) -> Signature:
    """Raises DeclarationError, naming the function, for anything that cannot be served."""
    where = f"{function.__module__}.{function.__qualname__}"
    hints = _hints(function, where)
    parameters = dict(inspect.signature(function).parameters)
    positional = tuple(name for name, each in parameters.items() if each.kind is each.POSITIONAL_ONLY)
    context = parameters.pop(CONTEXT, None)
    whole = [name for name in positional if name != CONTEXT]
    for parameter in parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise DeclarationError(
                f"{where}: {parameter} has no form on the wire; give every parameter a name and a type."
            )
        if parameter.name not in hints:
            raise DeclarationError(f"{where}: the parameter {parameter.name!r} has no type.")
    if "return" not in hints:
        raise DeclarationError(f"{where} says nothing of what it returns; write '-> None' where that is nothing.")
    output, streams, is_tracked = _output(hints["return"])
    if not streams and not inspect.iscoroutinefunction(function):
        raise DeclarationError(f"{where} has to be an async function.")
    if whole and len(parameters) > 1:
        raise DeclarationError(f"{where}: {whole[0]!r} stands before the slash and is the whole input; no other fits.")
    return Signature(
        context_type=hints.get(CONTEXT),
        takes_context=context is not None,
        input_type=hints[whole[0]] if whole else _input(function, parameters, hints, where),
        input_is_whole=bool(whole),
        input_is_optional=all(each.default is not each.empty for each in parameters.values()),
        output_type=output,
        streams=streams,
        tracked=is_tracked,
        field_names=tuple(parameters),
        positional=positional,
    )


def _hints(function: Callable[..., Any], where: str) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function, include_extras=True)
    except (NameError, TypeError, AttributeError) as error:
        raise DeclarationError(
            f"{where}: its types cannot be read ({error}); declare them at the module's level."
        ) from error


def _output(annotation: Any) -> tuple[Any | None, bool, bool]:
    item = stream_item(annotation)
    if item is not None:
        inner = tracked_item(item)
        return (item, True, False) if inner is None else (inner, True, True)
    return (None if annotation in (None, type(None)) else annotation), False, False


def _input(
    function: Callable[..., Any], parameters: dict[str, inspect.Parameter], hints: dict[str, Any], where: str
) -> Any | None:
    if not parameters:
        return None
    fields: list[Any] = []
    for parameter in parameters.values():
        fields.append(_field(parameter, hints[parameter.name]))
    wire_names = [camel(name) for name in parameters]
    if len(set(wire_names)) < len(wire_names):
        raise DeclarationError(f"{where}: two of its parameters have one name on the wire: {', '.join(wire_names)}.")
    title = camel(function.__name__)
    try:
        return msgspec.defstruct(
            title[0].upper() + title[1:] + "Input",
            fields,
            kw_only=True,
            rename={name: camel(name) for name in parameters},
            namespace={"__doc__": ""},
        )
    except (TypeError, ValueError) as error:
        raise DeclarationError(f"{where}: {error}") from error


def _field(parameter: inspect.Parameter, hint: Any) -> Any:
    if parameter.default is parameter.empty:
        return (parameter.name, hint)
    default = parameter.default
    if isinstance(default, list | dict | set | bytearray) or is_model(type(default)):
        return (parameter.name, hint, msgspec.field(default_factory=lambda: copy.deepcopy(default)))
    return (parameter.name, hint, default)
