"""A listening socket that is about to close: nobody new comes in, and whoever is inside already is met."""

from __future__ import annotations

import contextlib
import ctypes
import socket
import struct
import sys
from typing import Final

_SO_ATTACH_FILTER: Final = 26

# Classic BPF over the TCP header: drop what has SYN and not ACK in its flags, the byte at 13, and keep the rest.
_ONLY_KNOWN_CLIENTS: Final = (
    (0x30, 0, 0, 13),
    (0x54, 0, 0, 0x12),
    (0x15, 0, 1, 0x02),
    (0x06, 0, 0, 0),
    (0x06, 0, 0, 0xFFFFFFFF),
)


def ignore_newcomers(listener: socket.socket) -> bool:
    """Let the kernel drop the first packet of each new connection; False where it cannot.

    A listening socket resets at its close whatever was accepted for it in the meantime, and between the last accept
    and the close there is always a moment. Once nothing can arrive, that moment holds nobody. A client whose packet
    was dropped sends it again a second later, and meets the next process, or nobody.
    """
    if not sys.platform.startswith("linux") or listener.family not in (socket.AF_INET, socket.AF_INET6):
        return False
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in _ONLY_KNOWN_CLIENTS))
    program = struct.pack("HL", len(_ONLY_KNOWN_CLIENTS), ctypes.addressof(code))
    try:
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
    except OSError:
        return False
    return True


def accept_waiting(listener: socket.socket, most: int) -> list[socket.socket]:
    """The connections that the kernel has accepted and nobody has taken, at most so many."""
    waiting: list[socket.socket] = []
    listener.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while len(waiting) < most:
            connection, _ = listener.accept()
            connection.setblocking(False)
            waiting.append(connection)
    return waiting
