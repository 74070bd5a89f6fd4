"""The page as an ASGI application: mount it where operators or developers may see it, and nowhere else."""

from __future__ import annotations

from importlib import resources
from typing import Final

import msgspec

from oplata.rpc.http.asgi import Receive, Scope, Send, mounted_at
from oplata.rpc.panel.description import Description
from oplata.rpc.server import RpcApp

_TYPES: Final = {
    "index.html": b"text/html; charset=utf-8",
    "panel.css": b"text/css; charset=utf-8",
    "panel.js": b"text/javascript; charset=utf-8",
    "form.js": b"text/javascript; charset=utf-8",
    "calls.js": b"text/javascript; charset=utf-8",
}
_HEADERS: Final = (
    (b"content-security-policy", (b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
     b"img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-cache"),
)  # fmt: skip


class Panel:
    """Lists the procedures of an application and calls them at ``endpoint``, the path at which clients find it.

    The page has no rights of its own: it sends the headers that its user types, and the router decides. It shows every
    procedure's types and documentation to whoever can open it.
    """

    def __init__(self, app: RpcApp, endpoint: str, *, prefix: str = "") -> None:
        self._prefix = prefix
        self._description = msgspec.json.encode(Description().of(app.service, endpoint))
        static = resources.files("oplata.rpc.panel") / "static"
        self._files = {name: (static / name).read_bytes() for name in _TYPES}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        mounted = mounted_at(scope, self._prefix)
        path = str(scope["path"]).removeprefix(mounted)
        if path == "":
            # Relative addresses in the page need the slash.
            await self._answer(send, 307, b"", b"text/plain", ((b"location", mounted.encode() + b"/"),))
        elif scope["method"] not in ("GET", "HEAD"):
            await self._answer(send, 405, b"", b"text/plain", ((b"allow", b"GET, HEAD"),))
        elif path == "/router.json":
            await self._answer(send, 200, self._description, b"application/json")
        elif (name := path.removeprefix("/") or "index.html") in self._files:
            await self._answer(send, 200, self._files[name], _TYPES[name])
        else:
            await self._answer(send, 404, b"", b"text/plain")

    async def _answer(
        self, send: Send, status: int, body: bytes, kind: bytes, further: tuple[tuple[bytes, bytes], ...] = ()
    ) -> None:
        headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode()), *_HEADERS, *further]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})
