"""What one request, connection or process may ask for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """``connections`` counts what stays open: subscriptions over HTTP and WebSockets.

    ``socket_calls`` counts what one WebSocket has under way, its subscriptions included.
    """

    body_bytes: int = 1_048_576
    body_timeout_s: float = 30.0
    batch_calls: int = 100
    connections: int = 1_000
    socket_calls: int = 100
    socket_message_bytes: int = 1_048_576
    connection_params_timeout_s: float = 10.0
    # Chunks of one stream that may wait for a client who reads slowly; then its procedures wait. A subscription over
    # HTTP has none that wait, and gives way to others after so many.
    stream_chunks: int = 16


@dataclass(frozen=True, slots=True)
class Sse:
    """``max_duration_s`` ends a stream so that its client comes again, perhaps to another process.

    ``reconnect_after_inactivity_s`` is told to the client, which then gives up a silent connection by itself; it has
    to be longer than ``ping_s``. ``end_after_first`` closes after the first value, for servers that cannot hold
    connections.
    """

    enabled: bool = True
    ping_s: float = 15.0
    max_duration_s: float | None = None
    end_after_first: bool = False
    reconnect_after_inactivity_s: float | None = None


@dataclass(frozen=True, slots=True)
class KeepAlive:
    """A WebSocket is asked with PING after so long, and given up when no PONG came in time."""

    ping_s: float = 30.0
    pong_s: float = 5.0
