"""Procedures with known answers. Each shows one thing that a client has to understand."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncIterator
from typing import Literal, TypedDict

from oplata.rpc.errors import ConnectionDropped, RpcError
from oplata.rpc.forms import File, FormData, Octets
from oplata.rpc.router import Router
from oplata.rpc.tracked import Tracked, tracked

SLOW_S = 0.12
GAP_S = 0.01


class Post(TypedDict):
    id: str


class Undefined(TypedDict):
    is_undef: bool


class Counted(TypedDict):
    i: int


class Instant(TypedDict):
    at: datetime.datetime


def conformance_router() -> Router:
    """A new router; it keeps no state."""
    router = Router(post=_posts())
    _queries(router)
    _mutations(router)
    _subscriptions(router)
    return router


def _posts() -> Router:
    posts = Router()

    @posts.query
    async def by_id(post_id: str, /) -> Post:
        return {"id": post_id}

    return posts


def _queries(router: Router) -> None:
    @router.query
    async def hello() -> str:
        """Always says "world"."""
        return "world"

    @router.query
    async def nil() -> Literal[None]:
        return None

    @router.query
    async def undef() -> None: ...

    @router.query
    async def slow() -> str:
        await asyncio.sleep(SLOW_S)
        return "slow"

    @router.query
    async def fail() -> str:
        raise RpcError("UNAUTHORIZED", "nope")

    @router.query(batch=False)
    async def denied() -> str:
        """Refuses the whole batch that contains it."""
        return "alone"

    @router.query
    async def date() -> Instant:
        return {"at": datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)}

    @router.query
    async def day_after(day: datetime.datetime) -> datetime.datetime:
        return day + datetime.timedelta(days=1)

    @router.query
    async def count(to: int, fails: bool = False) -> AsyncIterator[int]:
        for number in range(to):
            yield number
        if fails:
            raise RpcError("CONFLICT", "x")


def _mutations(router: Router) -> None:
    @router.mutation
    async def add(a: int | float, b: int | float) -> int | float:
        return a + b

    @router.mutation
    async def noin() -> Undefined:
        return {"is_undef": True}

    @router.mutation
    async def form(data: FormData, /) -> dict[str, str]:
        return {name: value.content.decode() if isinstance(value, File) else value for name, value in data}

    @router.mutation
    async def octets(data: Octets, /) -> int:
        return len(data)


def _subscriptions(router: Router) -> None:
    @router.subscription
    async def sub(last_event_id: str | None = None) -> AsyncIterator[Tracked[Counted]]:
        """Counts from 0 to 3. Who starts without an id is dropped after 1, as by a network that breaks."""
        first = 0 if last_event_id is None else int(last_event_id) + 1
        for number in range(first, 4):
            yield tracked(str(number), {"i": number})
            await asyncio.sleep(GAP_S)
            if last_event_id is None and number == 1:
                raise ConnectionDropped

    @router.subscription
    async def sub_err() -> AsyncIterator[int]:
        yield 1
        raise RpcError("BAD_REQUEST", "subfail")

    @router.subscription
    async def forever() -> AsyncIterator[int]:
        number = 0
        while True:
            yield number
            number += 1
            await asyncio.sleep(GAP_S)
