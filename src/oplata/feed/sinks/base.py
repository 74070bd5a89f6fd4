"""What every sink can do."""

from __future__ import annotations

from typing import Protocol

from oplata.feed.event import Event


class Sink(Protocol):
    """One of the shop's systems. Several deliveries are made at once, but never two of one order."""

    async def start(self) -> None:
        """Make ready; nothing need be connected yet."""

    async def stop(self) -> None:
        """Let go of everything, within seconds."""

    def wants(self, event: Event) -> bool:
        """Whether this event concerns it at all."""

    async def deliver(self, event: Event) -> None:
        """Tell it, and return when it has taken it. May be cancelled.

        Raises ``DeliveryFailed`` when another try is worth while, ``DeliveryRefused`` when none is. Neither may quote
        an address's secrets or more than the beginning of an answer.
        """
