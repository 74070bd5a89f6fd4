"""Which other sites' pages may call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Cors:
    """``origins`` may hold "*", which cannot be had together with ``credentials``.

    ``headers`` are those that pages may send.
    """

    origins: tuple[str, ...] = ()
    credentials: bool = False
    headers: tuple[str, ...] = ("content-type", "trpc-accept", "trpc-batch-mode", "last-event-id", "authorization")
    max_age_s: int = 600

    def __post_init__(self) -> None:
        if self.credentials and "*" in self.origins:
            raise ValueError("A page may send credentials only from origins that are named, not from '*'.")

    def answer(self, request: Mapping[str, str]) -> Headers:
        """The headers of any answer to that request."""
        origin = request.get("origin")
        if origin is None or not ("*" in self.origins or origin in self.origins):
            return [(b"vary", b"origin")] if self.origins else []
        allowed = b"*" if "*" in self.origins else origin.encode("latin-1")
        headers = [(b"access-control-allow-origin", allowed), (b"vary", b"origin")]
        if self.credentials:
            headers.append((b"access-control-allow-credentials", b"true"))
        return headers

    def preflight(self, request: Mapping[str, str]) -> Headers:
        """The headers of the answer to a browser that asks before it sends."""
        return [
            *self.answer(request),
            (b"access-control-allow-methods", b"GET, POST, HEAD, OPTIONS"),
            (b"access-control-allow-headers", ", ".join(self.headers).encode("latin-1")),
            (b"access-control-max-age", str(self.max_age_s).encode()),
        ]
