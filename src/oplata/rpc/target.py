"""``module:attribute`` on a command line, as a router."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from oplata.rpc.errors import DeclarationError
from oplata.rpc.router import Router
from oplata.rpc.server import RpcApp


def load_router(target: str) -> Router:
    """A Router, an RpcApp, or a function without parameters that returns one of them. Raises DeclarationError."""
    module_name, _, attribute = target.partition(":")
    if not module_name or not attribute:
        raise DeclarationError(f"{target!r} is not of the form module:router.")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module_name)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise DeclarationError(f"{target!r} cannot be loaded: {error}") from error
    if callable(found) and not isinstance(found, Router | RpcApp):
        found = found()
    if isinstance(found, RpcApp):
        return found.service.router
    if isinstance(found, Router):
        return found
    raise DeclarationError(f"{target!r} is a {type(found).__name__}, not a Router.")
