"""``app-router.ts``: the router's procedures with their types and documentation, in one file that imports nothing."""

from __future__ import annotations

from oplata.rpc.procedure import Procedure
from oplata.rpc.router import Router
from oplata.rpc.shape import Reference, Stream
from oplata.rpc.typescript.preamble import Client, preamble
from oplata.rpc.typescript.types import Types, comment, key
from oplata.rpc.wire import Transformer

_MARKERS = {"query": "Query", "mutation": "Mutation", "subscription": "Subscription"}


def emit(router: Router, *, client: Client = "v11", transformer: Transformer = "none") -> str:
    """The same router always gives the same text."""
    has_transformer = transformer == "superjson"
    types = Types(has_dates=has_transformer)
    members = _members(router, types, client, "  ")
    head = preamble(client, has_transformer=has_transformer)
    return f"{head}{types.declarations()}\nexport type AppRouter = Router<{{\n{members}}}>;\n"


def _members(router: Router, types: Types, client: Client, indent: str) -> str:
    written = []
    for name, member in router.members.items():
        if isinstance(member, Router):
            opening, closing = ("Router<{", "}>") if client == "v10" else ("{", "}")
            inner = _members(member, types, client, indent + "  ")
            written.append(f"{indent}{key(name)}: {opening}\n{inner}{indent}{closing};\n")
        else:
            written.append(_procedure(name, member, types, client, indent))
    return "".join(written)


def _procedure(name: str, procedure: Procedure, types: Types, client: Client, indent: str) -> str:
    if client == "v10" and procedure.signature.streams and procedure.kind != "subscription":
        return f"{indent}// {name} streams, which clients of v10 cannot read.\n"
    shape = procedure.output_shape
    if procedure.kind == "subscription" and isinstance(shape, Stream):
        item = types.write(shape.item, procedure.shapes, "output")
        output = f"Tracked<{item}>" if shape.tracked else item
    else:
        output = types.write(shape, procedure.shapes, "output")
    marker = _MARKERS[procedure.kind]
    return f"{comment(procedure.doc, indent)}{indent}{key(name)}: {marker}<{_input(procedure, types)}, {output}>;\n"


def _input(procedure: Procedure, types: Types) -> str:
    """``void`` where there is none, ``| undefined`` where it may be left out: the clients' signatures follow from
    that.
    """
    shape = procedure.input_shape
    if procedure.input is None:
        return "void"
    if isinstance(shape, Reference) and not procedure.signature.input_is_whole:
        written = types.inline(procedure.shapes.record(shape), procedure.shapes, "input")
    else:
        written = types.write(shape, procedure.shapes, "input")
    return f"{written} | undefined" if procedure.input_may_be_absent else written
