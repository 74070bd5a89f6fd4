"""tRPC in Python: a server that an unmodified TypeScript client calls, and a client for theirs.

    from oplata.rpc import Router, RpcApp

    router = Router()

    @router.query
    async def hello(name: str = "world") -> str:
        '''Greets.'''
        return f"hello {name}"

    app = RpcApp(router)

The functions' annotations are the contract: what comes in is checked against them, what goes out too, and
``python -m oplata.rpc typescript module:router`` writes them down for TypeScript.
"""

from __future__ import annotations

from oplata.rpc.caller import Caller
from oplata.rpc.errors import CODES, Code, DeclarationError, RpcError
from oplata.rpc.forms import File, FormData, Octets
from oplata.rpc.http.cors import Cors
from oplata.rpc.limits import KeepAlive, Limits, Sse
from oplata.rpc.middleware import Base, Call, Proceed
from oplata.rpc.mounting import beside, routes
from oplata.rpc.router import Router
from oplata.rpc.server import RpcApp
from oplata.rpc.service import ContextRequest, Failure, Settings
from oplata.rpc.tracked import Tracked, tracked

__all__ = [
    "CODES",
    "Base",
    "Call",
    "Caller",
    "Code",
    "ContextRequest",
    "Cors",
    "DeclarationError",
    "Failure",
    "File",
    "FormData",
    "KeepAlive",
    "Limits",
    "Octets",
    "Proceed",
    "Router",
    "RpcApp",
    "RpcError",
    "Settings",
    "Sse",
    "Tracked",
    "beside",
    "routes",
    "tracked",
]
