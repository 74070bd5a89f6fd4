"""The web application around the callback, made to stand alone or to be mounted in another one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp, ExceptionHandler, Lifespan, Receive, Scope, Send

from oplata.errors import SettingsError
from oplata.ingest.callback import Callback

CALLBACK_PATH = "/api/tinkoff-callback"

Hook = Callable[[], Awaitable[None]]

_SENTENCES = {404: "there is nothing at this address", 405: "this address does not take this method"}


def create_app(
    callback: ASGIApp,
    *,
    path: str = CALLBACK_PATH,
    routes: Sequence[BaseRoute] = (),
    mounted: Mapping[str, ASGIApp] | None = None,
    on_start: Sequence[Hook] = (),
    on_stop: Sequence[Hook] = (),
) -> Starlette:
    """An application with the callback at ``path``, and beside it other ``routes`` and what is ``mounted`` at a path.

    ``on_start`` runs in order before the first request. ``on_stop`` runs in reverse order after the last one: every
    hook of it, also when another has failed or the start has. A framework that mounts this application runs neither:
    then start and stop the parts by hand. Raises ``SettingsError`` when the path cannot be one.
    """
    if not path.startswith("/") or not path.isascii() or any(mark in path for mark in "{}?#% "):
        raise SettingsError(
            f"the callback's path {path!r} has to start with a slash and to be plain, such as {CALLBACK_PATH}"
        )

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for stop in on_stop:
                stack.push_async_callback(stop)
            for start in on_start:
                await start()
            yield

    mounts = [Mount(prefix, each) for prefix, each in (mounted or {}).items()]
    app = _CallbackFirst(
        callback,
        path,
        mounts,
        routes=[Route(path, callback, name="callback"), *routes, *mounts],
        exception_handlers={HTTPException: _as_sentence},
        lifespan=lifespan,
    )
    # A redirect to the address without its last slash would lose the body of a POST.
    app.router.redirect_slashes = False
    return app


class _CallbackFirst(Starlette):
    """Starlette with a short cut to the callback and to what is mounted, which catch their own errors and so need none
    of the layers between: thousands of streams send each of their events through all of them.

    The short cut is taken only where the routes would lead to the same place: a middleware that was added sees every
    request, and a mounted application is left to find its own path.
    """

    def __init__(
        self,
        callback: ASGIApp,
        path: str,
        mounts: Sequence[Mount],
        *,
        routes: Sequence[BaseRoute],
        exception_handlers: Mapping[Any, ExceptionHandler],
        lifespan: Lifespan[Starlette],
    ) -> None:
        super().__init__(routes=routes, exception_handlers=exception_handlers, lifespan=lifespan)
        self._callback = callback
        self._path = path
        self._mounts = mounts

    @property
    def prompt(self) -> tuple[bytes, Callback] | None:
        """The callback and its path, when our own server may hand it whole requests without going through here."""
        if self.user_middleware or not isinstance(self._callback, Callback):
            return None
        return self._path.encode(), self._callback

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope.get("root_path") or self.user_middleware:
            await super().__call__(scope, receive, send)
        elif scope["path"] == self._path:
            await self._callback(scope, receive, send)
        else:
            await self._mounted(scope, receive, send)

    async def _mounted(self, scope: Scope, receive: Receive, send: Send) -> None:
        for mount in self._mounts:
            if mount.path and scope["path"].startswith(f"{mount.path}/"):
                scope["app"] = self
                scope.update(mount.matches(scope)[1])
                await mount.app(scope, receive, send)
                return
        await super().__call__(scope, receive, send)


async def _as_sentence(_: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    sentence = _SENTENCES.get(error.status_code, error.detail)
    return JSONResponse({"error": sentence}, error.status_code, headers=error.headers)
