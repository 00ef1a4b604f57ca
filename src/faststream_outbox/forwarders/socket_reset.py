"""Ends connections so that nothing of what is on its way leaves this machine any more."""

import asyncio
import contextlib
import socket
import struct

LINGER_ZERO = struct.pack("ii", 1, 0)
"""Closing then resets the connection, and the kernel throws away what has not left the machine."""


def reset(transport: asyncio.BaseTransport) -> None:
    """Reset a connection, and drop what is buffered."""
    if (sock := _socket_of(transport)) is not None:
        # Of one that is closed already. uvloop's says ValueError: its descriptor is negative then.
        with contextlib.suppress(OSError, ValueError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ZERO)
    # By the method: uvloop's transports are of none of asyncio's classes. One that is closed sends on what is buffered.
    abort = getattr(transport, "abort", transport.close)
    abort()


def _socket_of(transport: asyncio.BaseTransport) -> socket.socket | None:
    try:
        sock: socket.socket | None = transport.get_extra_info("socket")
    except AttributeError:
        # An encrypted transport of Python 3.11 whose connection is lost no longer knows what it stood on.
        return None
    return sock
