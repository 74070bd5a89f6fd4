"""How many sockets this process may hold open."""

from __future__ import annotations

import resource

RESERVE = 128
"""Descriptors that are kept for everything but connections: databases, the broker, files."""


def room_for(connections: int) -> int:
    """Ask for so many, and return how many connections there is room for: the system's hard limit may allow fewer."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + RESERVE
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return connections if soft == resource.RLIM_INFINITY else max(1, min(connections, soft - RESERVE))
