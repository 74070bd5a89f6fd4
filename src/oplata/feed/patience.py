"""Waiting for what may not come."""

from __future__ import annotations

import asyncio
import contextlib


async def wait_for(event: asyncio.Event, timeout_s: float) -> None:
    """Wait for the event, at most so long."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await event.wait()
