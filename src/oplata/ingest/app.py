"""The web application around the callback, made to stand alone or to be mounted in another one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, ExceptionHandler, Lifespan, Receive, Scope, Send

from oplata.errors import SettingsError

CALLBACK_PATH = "/api/tinkoff-callback"

Hook = Callable[[], Awaitable[None]]

_SENTENCES = {404: "there is nothing at this address", 405: "this address does not take this method"}


def create_app(
    callback: ASGIApp,
    *,
    path: str = CALLBACK_PATH,
    routes: Sequence[BaseRoute] = (),
    on_start: Sequence[Hook] = (),
    on_stop: Sequence[Hook] = (),
) -> Starlette:
    """An application with the callback at ``path`` and any other ``routes`` beside it.

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

    app = _CallbackFirst(
        callback,
        path,
        routes=[Route(path, callback, name="callback"), *routes],
        exception_handlers={HTTPException: _as_sentence},
        lifespan=lifespan,
    )
    # A redirect to the address without its last slash would lose the body of a POST.
    app.router.redirect_slashes = False
    return app


class _CallbackFirst(Starlette):
    """Starlette with a short cut to the callback, which catches its own errors and so needs none of the layers between.

    The short cut is taken only where the route would lead to the same place: a middleware that was added sees every
    request, and a mounted application is left to find its own path.
    """

    def __init__(
        self,
        callback: ASGIApp,
        path: str,
        *,
        routes: Sequence[BaseRoute],
        exception_handlers: Mapping[Any, ExceptionHandler],
        lifespan: Lifespan[Starlette],
    ) -> None:
        super().__init__(routes=routes, exception_handlers=exception_handlers, lifespan=lifespan)
        self._callback = callback
        self._path = path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        direct = scope["type"] == "http" and scope["path"] == self._path and not scope.get("root_path")
        if direct and not self.user_middleware:
            await self._callback(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


async def _as_sentence(_: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    sentence = _SENTENCES.get(error.status_code, error.detail)
    return JSONResponse({"error": sentence}, error.status_code, headers=error.headers)
